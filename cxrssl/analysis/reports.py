"""Scores of generated reports against what radiologists wrote."""

import importlib
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from cxrssl.analysis.resampling import patient_numbers, patient_weights, percentile_interval
from cxrssl.errors import InputError

__all__ = ["clinical_scores", "report_scores", "score_reports"]

_LEVEL = 0.95
_LONGEST = 4  # words of an n-gram

ClinicalMetric = Literal["chexbert_f1_14", "rg_er"]
_PACKAGES: dict[ClinicalMetric, str] = {"chexbert_f1_14": "f1chexbert", "rg_er": "radgraph"}


def report_scores(
    generated: Sequence[str], references: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Return ROUGE-L of each report and BLEU-4 of all of them together, in [0, 1].

    ROUGE-L (Lin 2004) compares lower-case words and numbers, without a stemmer. BLEU-4 (Papineni
    et al. 2002, doi:10.3115/1073083.1073135) compares what white space parts, so case and
    punctuation count; it has no smoothing, and is no mean over reports.

    Args:
        generated: n reports.
        references: What was to be written, one reference for each.

    Returns:
        ``rouge_l`` (n,), the F-measure, and ``bleu_4`` ().

    Raises:
        InputError: If there is no report, a report is no text, or the numbers differ.
    """
    _check_reports(generated, references)
    counts = _bleu_counts(generated, references)
    return {"rouge_l": _rouge_l(generated, references), "bleu_4": _corpus_bleu(counts.sum(0))}


def score_reports(
    generated: Sequence[str],
    references: Sequence[str],
    *,
    patients: Iterable[object] | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Return ROUGE-L and BLEU-4 with 95 % intervals, as RAD-DINO reports them (App. C.3).

    They are medians and 2.5 and 97.5 percentiles over bootstrap resamples of the test set, here of
    whole patients. BLEU-4 is taken anew over the reports of each resample.

    Args:
        generated: n reports.
        references: What was to be written, one reference for each.
        patients: Identifier of each report's patient; see :func:`patient_weights`. Without, each
            report is a patient of its own.
        replicates: Number of resamples.
        seed: Of the resamples.

    Returns:
        A row each for ``rouge_l`` (mean F-measure) and ``bleu_4``, in [0, 1]; papers print them
        times 100. Columns: ``metric``, ``value`` on the reports as they are, ``median``, ``low``,
        ``high`` (NaN with fewer than two patients) and ``reports``, their number.

    Raises:
        InputError: If there is no report or no resample, a report is no text, or the numbers
            differ.
    """
    _check_reports(generated, references)
    n = len(generated)
    owners = np.arange(n) if patients is None else patient_numbers(patients)
    if len(owners) != n or replicates < 1:
        raise InputError(
            f"{n} reports need as many patients, got {len(owners)}, and 1 resample or more, got "
            f"{replicates}"
        )
    rouge, counts = _rouge_l(generated, references), _bleu_counts(generated, references)
    weights = patient_weights(owners, replicates, np.random.default_rng(seed)).astype(np.float64)
    values = {"rouge_l": rouge.mean(), "bleu_4": _corpus_bleu(counts.sum(0))}
    drawn = {
        "rouge_l": weights @ rouge / weights.sum(1),
        "bleu_4": _corpus_bleu(weights @ counts),
    }
    if len(np.unique(owners)) < 2:
        drawn = {name: np.full(replicates, np.nan) for name in drawn}
    rows = [
        (name, float(values[name]), float(np.median(each)), *percentile_interval(each, _LEVEL), n)
        for name, each in drawn.items()
    ]
    return pd.DataFrame(rows, columns=["metric", "value", "median", "low", "high", "reports"])


def clinical_scores(
    generated: Sequence[str],
    references: Sequence[str],
    metrics: Sequence[ClinicalMetric] = ("chexbert_f1_14", "rg_er"),
) -> dict[str, float]:
    """Return how well the findings agree, in [0, 1], as two labellers of reports read them.

    ``chexbert_f1_14`` is the macro F1 over CheXbert's 14 observations (arXiv 2004.09167), where
    uncertain ones count as absent. ``rg_er`` is RadGraph's F1 of entities, with whether they have
    relations (RG_ER, ``partial`` of the package ``radgraph``; arXiv 2210.12186), by its first
    model, averaged over reports. Both packages fetch their models when they are first used.

    Args:
        generated: n reports.
        references: What was to be written, one reference for each.
        metrics: Which of the two are wanted.

    Raises:
        InputError: If there is no report, a report is no text, the numbers differ, or a metric is
            not known.
        ModuleNotFoundError: If a package is not installed, before anything is computed.
    """
    _check_reports(generated, references)
    unknown = [name for name in metrics if name not in _PACKAGES]
    if unknown:
        raise InputError(f"metrics must be among {', '.join(_PACKAGES)}, got {unknown[0]!r}")
    packages = {name: _import(_PACKAGES[name]) for name in metrics}
    missing = [_PACKAGES[name] for name, package in packages.items() if package is None]
    if missing:
        raise ModuleNotFoundError(
            f"{' and '.join(missing)} must be installed to score what reports say: "
            f"pip install {' '.join(missing)}"
        )
    measures = {"chexbert_f1_14": _chexbert_f1, "rg_er": _radgraph_f1}
    texts = list(generated), list(references)
    return {name: measures[name](package, *texts) for name, package in packages.items()}


def _check_reports(generated: Sequence[str], references: Sequence[str]) -> None:
    if len(generated) != len(references) or not len(generated):
        raise InputError(
            f"{len(generated)} generated reports need as many references, at least one, got "
            f"{len(references)}"
        )
    for number, pair in enumerate(zip(generated, references, strict=True)):
        if not all(isinstance(text, str) for text in pair):
            kinds = " and ".join(type(text).__name__ for text in pair)  # texts may be confidential
            raise InputError(
                f"report {number} must be two texts, generated and reference, got {kinds}: leave "
                "out images without a report"
            )


def _rouge_l(generated: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """Return the F-measure (n,) of the longest common subsequences."""
    from torchmetrics.functional.text import rouge_score  # imports transformers where it is there

    pairs = zip(generated, references, strict=True)
    scores = [rouge_score(text, truth, rouge_keys="rougeL") for text, truth in pairs]
    return np.array([float(score["rougeL_fmeasure"]) for score in scores])


def _bleu_counts(generated: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """Return what BLEU adds up over reports, (n, 10).

    For 1 to 4 words, how many n-grams of the report are in the reference, each at most as often as
    it is there; then how many n-grams the report has; then the words of both.
    """
    rows = []
    for text, truth in zip(generated, references, strict=True):
        words, true_words = text.split(), truth.split()
        found = [_ngrams(words, n) for n in range(1, _LONGEST + 1)]
        known = [_ngrams(true_words, n) for n in range(1, _LONGEST + 1)]
        matches = [(a & b).total() for a, b in zip(found, known, strict=True)]
        rows.append([*matches, *(a.total() for a in found), len(words), len(true_words)])
    return np.array(rows, dtype=np.int64)


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _corpus_bleu(counts: NDArray[np.number]) -> NDArray[np.float64]:
    """Return BLEU-4 (...) of summed counts (..., 10), 0 where nothing matches at some length."""
    matches, ngrams = counts[..., :_LONGEST], counts[..., _LONGEST : 2 * _LONGEST]
    words, true_words = counts[..., -2], counts[..., -1]
    scored = np.asarray(matches.min(-1) > 0)
    precision = np.where(scored[..., None], matches / np.maximum(ngrams, 1), 1.0)
    brevity = np.minimum(1 - true_words / np.maximum(words, 1), 0)
    return np.where(scored, np.exp(brevity + np.log(precision).mean(-1)), 0.0)


def _import(package: str) -> Any:
    """Return a package, None where it is not installed."""
    with warnings.catch_warnings():  # f1chexbert silences all warnings of the process
        try:
            return importlib.import_module(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            return None


def _chexbert_f1(package: Any, generated: list[str], references: list[str]) -> float:
    labeller = package.F1CheXbert()

    def observed(texts: list[str]) -> NDArray[np.bool_]:
        # Its other mode, and so its own F1, takes uncertain observations for present.
        labels = [labeller.get_label(text.strip(), mode="classification") for text in texts]
        return np.array([[label == 1 for label in each] for each in labels])

    truth, prediction = observed(references), observed(generated)
    return float(f1_score(truth, prediction, average="macro", zero_division=0))


def _radgraph_f1(package: Any, generated: list[str], references: list[str]) -> float:
    scorer = package.F1RadGraph(reward_level="partial", model_type="radgraph")
    return float(scorer(hyps=generated, refs=references)[0])

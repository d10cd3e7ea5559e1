"""What the frozen features are worth: scores with intervals, few labels, calibration."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import pandas as pd

from cxrssl.analysis.calibration import ReliabilityCurve
from cxrssl.analysis.evaluation_figures import (
    plot_few_label_curve,
    plot_reliability_curve,
    plot_score,
)
from cxrssl.evaluation.results import series
from cxrssl.reporting.content import Block, Charts, Fold, Part, Picture, Section, Table, Text, Tile
from cxrssl.reporting.pictures import chart
from cxrssl.reporting.subjects import Topic
from cxrssl.reporting.text import count, interval, with_interval

__all__ = ["METRICS", "headline", "method_name", "preferred_method", "probes_section"]

METRICS = {"auroc": "AUROC", "auprc": "AUPRC", "brier": "Brier score", "ece": "ECE"}
_ORDER = ("logistic", "linear", "knn")
_METHODS = {
    "logistic": "logistic regression",
    "linear": "ridge regression",
    "knn": "k nearest neighbours",
}
_MOST_DIAGRAMS = 12
_RANKS = ("auroc", "auprc", "sensitivity")
_ERRORS = ("brier", "ece")


def preferred_method(topic: Topic) -> str:
    """Return the method whose numbers stand for an encoder."""
    methods = topic.encoded.options.methods
    return next(method for method in _ORDER if method in methods)


def method_name(topic: Topic) -> str:
    """Return what that method is called."""
    return _METHODS[preferred_method(topic)]


def probes_section(topic: Topic) -> Section:
    """Return scores of every finding and method, few-label curves and reliability."""
    data = topic.results.description["data"]
    replicates = topic.encoded.options.replicates
    learnt = count(data["images"]["train"], "training image")
    scored = count(data["images"]["test"], "test image")
    patients = count(data["patients"]["test"], "patient")
    best = preferred_method(topic)
    others = [method for method in topic.encoded.options.methods if method != best]
    blocks: list[Block] = [Charts(_score_charts(topic), "wide"), _table(topic, best, _RANKS)]
    blocks += [Fold(_title(method), [_table(topic, method, _RANKS)]) for method in others]
    blocks.append(Fold("Calibration", _calibration(topic)))
    if charts := _few_label(topic):
        draws = count(topic.results.few_label["seed"].nunique(), "draw")
        caption = (
            "Logistic regression on few labelled images, chosen on all validation images: mean and "
            f"range over {draws} of them."
        )
        blocks.append(Charts(charts, "wide", caption))
    not_scored = topic.results.description["not_scored"]
    if not_scored:
        reasons = "; ".join(f"{finding} ({reason})" for finding, reason in not_scored.items())
        blocks.append(Text(f"Not scored: {reasons}."))
    return Section(
        "probes",
        "What the features tell",
        f"Simple classifiers on frozen features, learnt from {learnt} and scored on {scored} of "
        f"{patients}. Brackets and whiskers are 95 % intervals from {replicates:,} resamples of "
        "whole patients.",
        [Part(blocks)],
        [_tile(topic, metric) for metric in ("auroc", "auprc")],
    )


def _tile(topic: Topic, metric: str) -> Tile:
    """Return the mean of a metric over the findings."""
    method = preferred_method(topic)
    values = []
    for row in headline(topic, metric).to_dict("records"):
        name = str(row["encoder"]) if len(topic.subjects) > 1 else ""
        values.append((name, f"{row['value']:.3f}", interval(row)))
    data = topic.results.description["data"]
    patients, findings = data["patients"]["test"], len(topic.cohort.findings)
    note = f"{_METHODS[method]}, {count(findings, 'finding')}, {count(patients, 'test patient')}"
    return Tile(f"Macro {METRICS[metric]}", values, note)


def headline(topic: Topic, metric: str) -> pd.DataFrame:
    """Return the mean of a metric over the findings, a row for each encoder."""
    scores = topic.results.scores
    chosen = (scores["method"] == preferred_method(topic)) & (scores["finding"] == "macro")
    return scores[chosen & (scores["metric"] == metric)]


def _score_charts(topic: Topic) -> list[Picture]:
    scores = topic.results.scores
    if len(topic.subjects) > 1:
        scores = scores[scores["method"] == preferred_method(topic)]
    scores = scores.assign(series=series(scores.assign(method=scores["method"].map(_METHODS))))
    n_series, n_findings = scores["series"].nunique(), scores["finding"].nunique()
    height = 0.9 + (0.2 + 0.16 * n_series) * n_findings
    return [
        chart(
            partial(plot_score, scores, metric),
            f"{METRICS[metric]} of every finding with 95 % intervals; the table below has the "
            "numbers.",
            width=5.0,
            height=height,
        )
        for metric in ("auroc", "auprc")
    ]


def _title(method: str) -> str:
    return f"Scores of {_METHODS[method]}"


def _table(topic: Topic, method: str, wanted: Sequence[str]) -> Table:
    """Return the scores of one method, a column for each encoder and metric."""
    scores = topic.results.scores
    scores = scores[scores["method"] == method]
    several = scores["encoder"].nunique() > 1
    metrics = [m for m in scores["metric"].unique() if m.startswith(tuple(wanted))]
    # There is room for two metrics of two encoders.
    metrics = metrics[:2] if several else metrics
    blocks = {str(name): block for name, block in scores.groupby("encoder", sort=False)}
    columns = [
        f"{_named(metric)}{f', {name}' if several else ''}" for metric in metrics for name in blocks
    ]
    rows = []
    for finding in scores["finding"].unique():
        of = scores[scores["finding"] == finding].iloc[0]
        cells = [
            _cell(table[(table["finding"] == finding) & (table["metric"] == metric)])
            for metric in metrics
            for table in blocks.values()
        ]
        rows.append([finding.replace("_", " "), f"{of['positives']:,} / {of['images']:,}", *cells])
    caption = f"{_METHODS[method].capitalize()}, 95 % intervals; positives of images with a label"
    return Table(["Finding", "Positives", *columns], rows, caption)


def _named(metric: str) -> str:
    name, _, at = metric.partition("@")
    return METRICS.get(metric, f"{name} at {at.replace('spec', ' spec')}".capitalize())


def _cell(rows: pd.DataFrame) -> str:
    return with_interval(rows.iloc[0].to_dict()) if len(rows) else "-"


def _few_label(topic: Topic) -> list[Picture]:
    table = topic.results.few_label
    if table.empty:
        return []
    curve = table.assign(series=series(table))
    every: tuple[Literal["share", "shots"], ...] = ("share", "shots")
    kinds = [kind for kind in every if (curve["kind"] == kind).any()]
    return [
        chart(
            partial(plot_few_label_curve, curve, metric, kind),
            f"Macro {METRICS[metric]} against the number of labelled images, by {kind}.",
        )
        for metric in ("auroc", "auprc")
        for kind in kinds
    ]


def _calibration(topic: Topic) -> list[Block]:
    """Return errors of the probabilities, and reliability diagrams of frequent findings."""
    method = preferred_method(topic)
    caption = "Share of positives against predicted probability; dots grow with their images."
    return [
        _table(topic, method, _ERRORS),
        Charts(_reliability(topic, method), "small", caption),
    ]


def _reliability(topic: Topic, method: str) -> list[Picture]:
    curves = topic.results.reliability(method)
    wanted = sorted(curves, key=lambda finding: -_size(curves[finding]))[:_MOST_DIAGRAMS]
    return [
        chart(
            partial(plot_reliability_curve, curves[finding], finding.replace("_", " ")),
            f"Share of positives against the probability that {_METHODS[method]} gives for "
            f"{finding}.",
            width=3.0,
            height=3.1,
        )
        for finding in curves
        if finding in wanted
    ]


def _size(curves: dict[str, ReliabilityCurve]) -> int:
    return max(int(curve.images.sum()) for curve in curves.values())

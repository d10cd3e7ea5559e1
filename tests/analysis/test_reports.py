import sys
import warnings
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import f1_score
from torchmetrics.functional.text import bleu_score, rouge_score

from cxrssl.analysis.reports import clinical_scores, report_scores, score_reports
from cxrssl.analysis.resampling import patient_weights
from cxrssl.data.phantom.findings import FINDINGS
from cxrssl.data.phantom.report import findings_text
from cxrssl.errors import InputError


def reports(n=12, seed=0):
    """Return generated reports and references of which many sentences agree."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, len(FINDINGS))) < 0.3
    changed = labels ^ (rng.random(labels.shape) < 0.2)

    def texts(rows):
        return [findings_text(dict(zip(FINDINGS, map(int, r), strict=True)), rng) for r in rows]

    return texts(changed), texts(labels)


def slow_rouge_l(text, truth):
    """Return F of the longest common subsequence, by its definition."""
    a, b = ("".join(c if c.isalnum() else " " for c in t.lower()).split() for t in (text, truth))

    def common(i, j):
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + common(i + 1, j + 1)
        return max(common(i + 1, j), common(i, j + 1))

    length = common(0, 0)
    return 2 * length / (len(a) + len(b)) if length else 0.0


def test_rouge_l_by_its_definition():
    generated = ["The heart is large.", "No effusion", "Lungs clear", ""]
    references = ["the heart IS not large", "no pleural effusion!", "Cardiomegaly.", "No."]
    found = report_scores(generated, references)["rouge_l"]
    expected = [slow_rouge_l(*pair) for pair in zip(generated, references, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found, [8 / 9, 4 / 5, 0, 0], rtol=1e-6)


def test_scores_equal_those_of_torchmetrics():
    generated, references = reports()
    found = report_scores(generated, references)
    expected = rouge_score(generated, references, rouge_keys="rougeL")["rougeL_fmeasure"]
    np.testing.assert_allclose(found["rouge_l"].mean(), expected, rtol=1e-6)
    np.testing.assert_allclose(
        found["bleu_4"], bleu_score(generated, [[r] for r in references]), rtol=1e-5
    )
    assert 0.1 < found["bleu_4"] < 0.9


def test_bleu_by_hand():
    # 1-grams 5 of 6, 2-grams 3 of 5, 3-grams 2 of 4, 4-grams 1 of 3; 6 words against 8.
    generated, references = ["the cat is on mat the"], ["the cat is on a big red mat"]
    expected = np.exp(1 - 8 / 6) * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert report_scores(generated, references)["bleu_4"] == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "the", "the heart is", "lungs are clear of it"])
def test_bleu_is_zero_where_no_four_words_agree(text):
    assert report_scores([text], ["the heart is large"])["bleu_4"] == 0


def test_a_report_equal_to_its_reference_scores_one():
    _, references = reports()
    found = report_scores(references, references)
    np.testing.assert_allclose(found["rouge_l"], 1)
    assert found["bleu_4"] == pytest.approx(1)


def test_intervals_equal_those_of_reports_repeated_by_hand():
    generated, references = reports(6)
    patients = ["a", "a", "b", "c", None, None]
    frame = score_reports(generated, references, patients=patients, replicates=25, seed=3)
    drawn = []
    for row in patient_weights(patients, 25, np.random.default_rng(3)):
        texts = [text for text, times in zip(generated, row, strict=True) for _ in range(times)]
        truths = [text for text, times in zip(references, row, strict=True) for _ in range(times)]
        rouge = rouge_score(texts, truths, rouge_keys="rougeL")["rougeL_fmeasure"]
        drawn.append([float(rouge), float(bleu_score(texts, [[truth] for truth in truths]))])
    assert frame["metric"].tolist() == ["rouge_l", "bleu_4"]
    assert frame["reports"].tolist() == [6, 6]
    for column, share in (("low", 0.025), ("median", 0.5), ("high", 0.975)):
        np.testing.assert_allclose(frame[column], np.quantile(drawn, share, axis=0), rtol=1e-5)
    scores = report_scores(generated, references)
    np.testing.assert_allclose(frame["value"], [scores["rouge_l"].mean(), scores["bleu_4"]])


def test_one_patient_has_no_interval():
    frame = score_reports(*reports(3), patients=["a"] * 3, replicates=5)
    assert frame[["median", "low", "high"]].isna().to_numpy().all()
    assert frame["value"].notna().all()


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ((["a"], []), {}, "1 generated reports need as many references, at least one, got 0"),
        (([], []), {}, "0 generated reports need"),
        ((["a", None], ["a", "b"]), {}, "report 1 must be two texts.*got NoneType and str"),
        ((["a"], ["b"]), {"patients": [1, 2]}, "1 reports need as many patients, got 2"),
        ((["a"], ["b"]), {"replicates": 0}, "1 resample or more, got 0"),
    ],
)
def test_what_does_not_belong_together_is_refused(texts, options, message):
    with pytest.raises(InputError, match=message):
        score_reports(*texts, **options)


class FakeCheXbert:
    """Reads blank, present, absent or uncertain from signs in a text, one for each observation."""

    def get_label(self, report, mode="rrg"):
        assert mode == "classification"
        return [{"_": "", "+": 1, "-": 0, "?": -1}[sign] for sign in report]


class FakeRadGraph:
    def __init__(self, reward_level, model_type):
        assert (reward_level, model_type) == ("partial", "radgraph")

    def __call__(self, hyps, refs):
        rewards = [float(text == truth) for text, truth in zip(hyps, refs, strict=True)]
        return np.mean(rewards), rewards, [], []


@pytest.fixture
def packages(monkeypatch):
    """Put fakes in the place of both packages."""
    for name, attribute, fake in (
        ("f1chexbert", "F1CheXbert", FakeCheXbert),
        ("radgraph", "F1RadGraph", FakeRadGraph),
    ):
        module = ModuleType(name)
        setattr(module, attribute, fake)
        monkeypatch.setitem(sys.modules, name, module)


def test_uncertain_observations_count_as_absent(packages):
    generated = ["+" * 7 + "?" * 7, "-_" * 7, "+?" * 7]
    references = ["+" * 14, "?+" * 7, "+-" * 7]
    truth, found = (
        [[c == "+" for c in text] for text in texts] for texts in (references, generated)
    )
    scores = clinical_scores(generated, references)
    expected = f1_score(truth, found, average="macro", zero_division=0)
    assert scores == {"chexbert_f1_14": pytest.approx(expected), "rg_er": 0.0}
    assert 0 < expected < 1
    assert clinical_scores(references, references)["rg_er"] == 1


def test_missing_packages_are_named(monkeypatch, packages):
    monkeypatch.setitem(sys.modules, "radgraph", None)
    with pytest.raises(ModuleNotFoundError, match=r"^radgraph must .*: pip install radgraph$"):
        clinical_scores(["+"], ["+"])
    monkeypatch.setitem(sys.modules, "f1chexbert", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install f1chexbert radgraph$"):
        clinical_scores(["+"], ["+"])


def test_one_clinical_metric_needs_one_package(monkeypatch, packages):
    monkeypatch.setitem(sys.modules, "f1chexbert", None)
    assert clinical_scores(["a"], ["a"], ["rg_er"]) == {"rg_er": 1.0}
    with pytest.raises(InputError, match="among chexbert_f1_14, rg_er, got 'radcliq'"):
        clinical_scores(["a"], ["a"], ["radcliq"])


@pytest.fixture
def radgraph_file(monkeypatch, tmp_path):
    """Return the file that ``import radgraph`` reads."""
    monkeypatch.setitem(sys.modules, "radgraph", None)  # so that it is forgotten afterwards
    del sys.modules["radgraph"]
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "radgraph.py"


def test_a_package_that_lacks_another_says_so_itself(radgraph_file):
    radgraph_file.write_text("import lost_package\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'lost_package'"):
        clinical_scores(["a"], ["a"], ["rg_er"])


def test_packages_do_not_silence_warnings(radgraph_file):
    radgraph_file.write_text(
        "import warnings\n"
        "warnings.filterwarnings('ignore')\n"
        "F1RadGraph = lambda reward_level, model_type: lambda hyps, refs: (0.5, [], [], [])\n"
    )
    before = list(warnings.filters)
    assert clinical_scores(["a"], ["a"], ["rg_er"]) == {"rg_er": 0.5}
    assert warnings.filters == before

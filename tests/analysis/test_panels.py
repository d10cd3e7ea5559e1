"""Every panel draws on the axes it is given, returns them, and makes its own without."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cxrssl import analysis
from cxrssl.analysis.calibration import reliability_curve
from cxrssl.errors import InputError

IMAGE = np.linspace(0, 1, 64).reshape(8, 8)
SCORES = pd.DataFrame(
    {
        "finding": ["Edema", "macro"] * 2,
        "metric": "auroc",
        "series": ["a", "a", "b", "b"],
        "value": 0.7,
        "low": 0.6,
        "high": 0.8,
    }
)
CURVE = pd.DataFrame(
    {
        "finding": "macro",
        "metric": "auroc",
        "kind": "share",
        "size": [0.1, 1.0] * 2,
        "series": ["a", "a", "b", "b"],
        "value": [0.6, 0.7, 0.5, 0.6],
    }
)
DIFFERENCES = SCORES[:2].assign(difference=0.1, low=-0.1, high=0.3)
RELIABILITY = reliability_curve(np.array([0.1, 0.9]), np.array([0, 1]))
MASK = np.eye(8) > 0
PANELS = {
    "score": lambda ax: analysis.plot_score(SCORES, "auroc", ax),
    "few labels": lambda ax: analysis.plot_few_label_curve(CURVE, "auroc", "share", ax),
    "differences": lambda ax: analysis.plot_differences(DIFFERENCES, "auroc", ax),
    "reliability": lambda ax: analysis.plot_reliability_curve(
        {"a": RELIABILITY, "b": RELIABILITY}, "Edema", ax
    ),
    "curve": lambda ax: analysis.plot_curve({"loss": [(0, 1.0), (9, 0.5)]}, "Loss", ax),
    "colours": lambda ax: analysis.plot_patch_colours(np.zeros((2, 2, 3)), ax),
    "attention": lambda ax: analysis.plot_attention_map(IMAGE, np.eye(2), ax),
    "overlay": lambda ax: analysis.plot_overlay(IMAGE, MASK.astype(np.uint8), MASK, ax),
    "correspondence": lambda ax: analysis.plot_correspondence(IMAGE, np.eye(2), ax),
    "spectrum": lambda ax: analysis.plot_spectrum({"a": np.eye(4)}, ax),
    "norms": lambda ax: analysis.plot_norms({"patch tokens": np.arange(1.0, 5)}, ax),
    "domain": lambda ax: analysis.plot_domain(None, ax),
}


@pytest.mark.parametrize("name", PANELS)
def test_axes_go_in_and_come_out(name, tmp_path):
    figure, given = plt.subplots()
    try:
        assert PANELS[name](given) is given
        assert plt.get_fignums() == [figure.number]
        own = PANELS[name](None)
        assert own is not given
        own.figure.savefig(tmp_path / "panel.png")
    finally:
        plt.close(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: analysis.plot_score(SCORES, "f1"),
        lambda: analysis.plot_few_label_curve(CURVE, "auroc", "shots"),
        lambda: analysis.plot_differences(DIFFERENCES, "auprc"),
        lambda: analysis.plot_reliability_curve({}),
        lambda: analysis.plot_overlay(IMAGE[:4], MASK.astype(np.uint8), MASK),
    ],
)
def test_nothing_to_draw_is_bad_input(draw):
    with pytest.raises(InputError):
        draw()

import numpy as np
import pandas as pd
import pytest

from cxrssl.analysis.calibration import reliability_curve
from cxrssl.analysis.evaluation_figures import plot_few_label, plot_reliability, plot_scores
from cxrssl.errors import InputError


def scores():
    rows = [
        (series, finding, metric, 0.6 + shift, 0.5 + shift, 0.7 + shift)
        for shift, series in ((0.0, "a"), (0.1, "b"))
        for finding in ("Edema", "macro")
        for metric in ("auroc", "auprc", "brier")
    ]
    return pd.DataFrame(rows, columns=["series", "finding", "metric", "value", "low", "high"])


def curve():
    rows = [
        (series, kind, size, seed, "macro", metric, 0.5 + 0.1 * seed)
        for series in ("a", "b")
        for kind, sizes in (("share", (0.1, 1.0)), ("shots", (1, 2, 4)))
        for size in sizes
        for seed in (0, 1)
        for metric in ("auroc", "auprc")
    ]
    names = ["series", "kind", "size", "seed", "finding", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


def test_scores_stand_beside_each_other_with_their_intervals():
    figure = plot_scores(scores())
    auroc, auprc = figure.axes
    assert [axes.get_title(loc="left") for axes in (auroc, auprc)] == ["AUROC", "AUPRC"]
    assert [label.get_text() for label in auroc.get_yticklabels()] == ["Edema", "macro"]
    values = {line.get_label(): line.get_xdata().tolist() for line in auprc.lines}
    assert values == {"a": [0.6, 0.6], "b": [0.7, 0.7]}
    ends = [segment[:, 0].tolist() for segment in auprc.collections[1].get_segments()]
    np.testing.assert_allclose(ends, [[0.6, 0.8], [0.6, 0.8]])
    places = [line.get_ydata() for line in auprc.lines]
    assert (places[0] < places[1]).all()  # the first series is above; the axis points down
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    figure.canvas.draw()


def test_a_score_that_is_missing_leaves_a_gap():
    table = scores()
    table = table[(table["series"] == "a") | (table["finding"] == "macro")]
    figure = plot_scores(table, ["auroc"])
    b = next(line for line in figure.axes[0].lines if line.get_label() == "b")
    np.testing.assert_array_equal(np.isnan(b.get_xdata()), [True, False])
    figure.canvas.draw()


def test_few_label_curves_are_means_over_seeds():
    figure = plot_few_label(curve())
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "AUROC by share of training images",
        "AUROC by images a class (shots)",
        "AUPRC by share of training images",
        "AUPRC by images a class (shots)",
    ]
    shots = figure.axes[1]
    assert shots.lines[0].get_xdata().tolist() == [1, 2, 4]
    np.testing.assert_allclose(shots.lines[0].get_ydata(), 0.55)
    band = shots.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose((band.min(), band.max()), (0.5, 0.6))
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["10%", "100%"]


def test_a_curve_of_one_kind_has_one_column():
    table = curve()
    figure = plot_few_label(table[table["kind"] == "shots"], ["auroc"])
    assert len(figure.axes) == 1


def test_reliability_shows_bins_that_hold_images():
    probabilities = np.array([0.1, 0.15, 0.9])
    truth = np.array([0, 1, 1])
    curves = {"Edema": {"a": reliability_curve(probabilities, truth, bins=4)}}
    figure = plot_reliability(curves | {"Effusion": curves["Edema"]})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Edema", "Effusion"]
    line = next(line for line in figure.axes[0].lines if line.get_label() == "a")
    np.testing.assert_allclose(line.get_xydata(), [[0.125, 0.5], [0.9, 1]])
    figure.canvas.draw()


def test_nothing_to_draw():
    with pytest.raises(InputError, match="no score of f1"):
        plot_scores(scores(), ["f1"])
    with pytest.raises(InputError, match="no mean score of f1"):
        plot_few_label(curve(), ["f1"])
    with pytest.raises(InputError, match="no reliability curve"):
        plot_reliability({})

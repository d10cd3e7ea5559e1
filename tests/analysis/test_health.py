import numpy as np
import pytest

from cxrssl.analysis.health import health_measures, plot_norms, plot_spectrum, spectrum
from cxrssl.errors import InputError


def features(n=60, width=8):
    return np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)


def test_the_jackknife_of_single_images_is_that_of_the_textbook():
    x = features(12)
    table = health_measures(x).set_index("measure")
    spread = table.loc["feature spread"]

    def measure(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.sqrt(rows.shape[1]) * unit.std(0).mean()

    left_out = np.array([measure(np.delete(x, i, 0)) for i in range(12)])
    error = np.sqrt(11 / 12 * np.sum((left_out - left_out.mean()) ** 2))
    assert spread["value"] == pytest.approx(measure(x), rel=1e-6)
    assert spread["high"] - spread["low"] == pytest.approx(2 * 1.959964 * error, rel=1e-5)


def test_intervals_are_of_patients_and_need_five():
    x = np.repeat(features(10), 4, axis=0)
    patients = np.repeat(np.arange(10), 4)
    ranks = health_measures(x, patients).set_index("measure").loc["effective rank"]
    alone = health_measures(x).set_index("measure").loc["effective rank"]
    assert ranks["high"] - ranks["low"] > alone["high"] - alone["low"]
    assert np.isnan(health_measures(x[:16], patients[:16])["low"]).all()


def test_the_spectrum_is_that_of_the_covariance():
    x = features()
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(spectrum(x)[:8], values / values.sum(), rtol=1e-5)
    with pytest.raises(InputError, match="all features are alike"):
        spectrum(np.ones((5, 3)))


def test_figures_draw_on_the_axes_given_and_make_their_own():
    axes = plot_spectrum({"a": features(), "b": features(30)})
    assert plot_spectrum({"c": features()}, axes) is axes
    assert [line.get_label() for line in axes.lines] == ["a", "b", "c"]
    norms = plot_norms({"patch tokens": np.full((2, 3), 2.0), "class token": np.ones(4)})
    heights = [patch.get_xy()[:, 1].max() for patch in norms.patches]
    assert heights == pytest.approx([1, 1])
    with pytest.raises(InputError, match="norms must be finite"):
        plot_norms({"patch tokens": np.array([np.nan])})

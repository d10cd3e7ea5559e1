import numpy as np
import pytest

from cxrssl.analysis import plot_curves, plot_patch_pca

HISTORY = {
    "loss": [(0, 2.0), (10, 1.0)],
    "loss/ibot": [(0, 2.0), (10, 1.0)],
    "schedule/lr": [(0, 0.1), (10, 0.2)],
    "probe/knn/auroc/macro": [(0, 0.6), (10, 0.7)],
    "probe/linear/auroc/macro": [(0, 0.7), (10, 0.8)],
    "probe/linear/auroc/Edema": [(0, 0.7), (10, 0.8)],
    "health/effective_rank": [(0, 4.0)],
    "speed/images_per_s": [(10, 100.0)],
    "health/feature_spread": [],
}


def lines(figure, title):
    axes = next(a for a in figure.axes if a.get_title(loc="left") == title)
    return {line.get_label(): line.get_ydata().tolist() for line in axes.lines}


def test_panels_show_what_there_is_and_no_more():
    figure = plot_curves(HISTORY)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Loss",
        "Loss terms, unweighted",
        "Probe, macro AUROC",
        "Effective rank",
        "Learning rate",
    ]
    assert lines(figure, "Probe, macro AUROC") == {"kNN": [0.6, 0.7], "linear": [0.7, 0.8]}
    assert lines(figure, "Loss terms, unweighted") == {"ibot": [2.0, 1.0]}


def test_panels_of_tasks_and_of_shared_backbones():
    up = [(0, 0.5), (10, 0.6)]
    names = [
        "val/auroc/macro",
        "val/auprc/macro",
        "val/auroc/Edema",
        "candidates/auroc/LinearProbe_lr0.01",
        "candidates/auroc/LinearProbe_lr0.1",
        "candidates/auprc/one",
        "val/dice/lungs",
        "val/dice/macro",
        "val/dice_where_present/lungs",
        "share/dinov2",
        "share/mlvicx",
        "health/mlvicx/global_std",
        "health/level0_std",
        "health/std",
    ]
    figure = plot_curves(dict.fromkeys(names, up))
    labels = {
        a.get_title(loc="left"): set(lines(figure, a.get_title(loc="left"))) for a in figure.axes
    }
    assert labels == {
        "Validation, macro": {"AUROC", "AUPRC"},
        "Candidates, macro AUROC": {"LinearProbe lr0.01", "LinearProbe lr0.1"},
        "Candidates, macro AUPRC": {"one"},
        "Dice, validation": {"lungs", "macro"},
        "Spread of levels and embeddings": {"global std", "level0 std", "std"},
        "Shares of objectives": {"dinov2", "mlvicx"},
    }


def test_more_curves_than_colours_can_be_told_apart():
    names = [f"candidates/auroc/GLoRI_lr{10.0**-number:g}" for number in range(13)]
    figure = plot_curves({name: [(0, 0.5), (10, 0.6)] for name in names})
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 13


def test_long_curves_get_a_running_mean_with_true_ends():
    values = np.random.default_rng(0).normal(size=200)
    figure = plot_curves({"loss": list(enumerate(values.tolist()))})
    raw, smooth = figure.axes[0].lines
    np.testing.assert_allclose(raw.get_ydata(), values)
    np.testing.assert_allclose(smooth.get_ydata()[0], values[:3].mean())  # 5 wide, 3 there
    np.testing.assert_allclose(smooth.get_ydata()[100], values[98:103].mean())


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="has a curve that can be drawn"):
        plot_curves({"speed/images_per_s": [(0, 1.0)], "loss": []})


def test_components_separate_two_kinds_of_patches_alike_in_all_images():
    rng = np.random.default_rng(0)
    kind = rng.random((3, 12)) < 0.5
    kind[0, :2] = [True, False]
    patches = np.where(kind[..., None], 1.0, -1.0) * rng.normal(size=8)
    patches = patches + rng.normal(size=patches.shape) * 1e-3
    figure = plot_patch_pca(np.zeros((3, 6, 8)), patches, (3, 4))
    red = np.stack([axes.images[0].get_array()[..., 0] for axes in figure.axes[1::2]])
    assert red.shape == (3, 3, 4)
    low, high = sorted((red.reshape(3, 12)[kind].mean(), red.reshape(3, 12)[~kind].mean()))
    assert low < 0.05
    assert high > 0.95


def test_collapsed_patches_are_grey():
    figure = plot_patch_pca(np.zeros((1, 4, 4)), np.ones((1, 4, 2)), (2, 2))
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), 0.5)


def test_can_be_written(tmp_path):
    rng = np.random.default_rng(0)
    plot_curves(HISTORY).savefig(tmp_path / "curves.png")
    plot_patch_pca(rng.random((4, 8, 8)), rng.normal(size=(4, 4, 5)), (2, 2)).savefig(
        tmp_path / "patches.png"
    )
    for name in ("curves.png", "patches.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_patches_must_fit_the_grid():
    with pytest.raises(ValueError, match=r"do not fit a grid of \(2, 3\)"):
        plot_patch_pca(np.zeros((1, 4, 4)), np.ones((1, 4, 2)), (2, 3))

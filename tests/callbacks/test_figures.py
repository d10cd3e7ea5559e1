import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cxrssl.analysis import plot_patch_pca
from cxrssl.callbacks import OnlineProbe, RunFigures
from tests.callbacks.tiny import TinyData, TinyObjective, train


class Failing(TinyObjective):
    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == 2:
            raise self.error
        return super().training_step(batch, batch_idx)


def names(folder):
    return sorted(path.name for path in folder.glob("*.png"))


def test_draws_both_at_the_end_and_says_where(tmp_path, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    figures = RunFigures()
    train(TinyObjective(), TinyData(), [OnlineProbe(), figures], tmp_path)
    assert names(tmp_path) == ["curves.png", "patches.png"]
    assert f"Figures: {tmp_path / 'curves.png'}, {tmp_path / 'patches.png'}" in caplog.messages
    curves = figures.history.curves
    assert [step for step, _ in curves["loss"]] == list(range(1, 9))
    assert curves["probe/linear/auroc/macro"][0][0] == 0


@pytest.mark.parametrize(
    ("error", "raised"),
    [(RuntimeError("out of memory"), RuntimeError), (KeyboardInterrupt(), SystemExit)],
)
def test_draws_when_a_run_ends_early(tmp_path, error, raised):
    objective = Failing()
    objective.error = error
    with pytest.raises(raised, match=r"out of memory|1"):
        train(objective, TinyData(), [RunFigures()], tmp_path)
    assert names(tmp_path) == ["curves.png", "patches.png"]


def test_does_not_change_training(tmp_path):
    states = []
    for callbacks in ([], [RunFigures()]):
        torch.manual_seed(0)
        objective = TinyObjective()
        train(objective, TinyData(), callbacks, tmp_path)
        states.append((objective.state_dict(), torch.get_rng_state()))
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert torch.equal(states[0][1], states[1][1])


def test_shows_the_images_as_they_were(tmp_path, monkeypatch):
    shown = {}

    def plot(images, patches, grid):
        shown.update(images=images, patches=patches, grid=grid)
        return plot_patch_pca(images, patches, grid)

    monkeypatch.setattr("cxrssl.callbacks.figures.plot_patch_pca", plot)
    data, objective = TinyData(), TinyObjective()
    train(objective, data, [RunFigures(images=6)], tmp_path)
    expected = (data.images[:6, 0] * 0.25 + 0.5).clamp(0, 1).numpy()
    np.testing.assert_allclose(shown["images"], expected, rtol=1e-6)
    tokens = objective.eval().encoder(data.images[:6])
    np.testing.assert_allclose(shown["patches"], tokens.patches.detach().numpy(), rtol=1e-5)
    assert shown["grid"] == (2, 2)


def test_training_images_where_no_others_are_labelled(tmp_path):
    train(TinyObjective(), TinyData(splits=("train",)), [RunFigures()], tmp_path)
    assert names(tmp_path) == ["curves.png", "patches.png"]


@pytest.mark.parametrize("data", [TinyData(labels=[]), TinyData().train_dataloader()])
def test_only_curves_without_probe_images(tmp_path, data):
    train(TinyObjective(), data, [RunFigures()], tmp_path)
    assert names(tmp_path) == ["curves.png"]


def test_only_curves_where_asked(tmp_path):
    train(TinyObjective(), TinyData(), [RunFigures(images=0)], tmp_path)
    assert names(tmp_path) == ["curves.png"]


def test_a_figure_that_fails_is_a_warning(tmp_path, monkeypatch):
    def fail(history):
        raise OSError("disk full")

    monkeypatch.setattr("cxrssl.callbacks.figures.plot_curves", fail)
    with pytest.warns(UserWarning, match="curves.png could not be drawn: OSError"):
        train(TinyObjective(), TinyData(), [RunFigures()], tmp_path)
    assert names(tmp_path) == ["patches.png"]


class Late(Callback):
    def on_train_start(self, trainer, pl_module):
        raise RuntimeError("early")


def test_nothing_to_draw_yet(tmp_path):
    with pytest.raises(RuntimeError, match="early"):
        train(TinyObjective(), TinyData(), [RunFigures(images=0), Late()], tmp_path)
    assert names(tmp_path) == []


def test_curves_survive_a_resume():
    figures = RunFigures(points=50)
    figures.history.add(3, {"loss": 1.5})
    other = RunFigures(points=50)
    other.load_state_dict(figures.state_dict())
    assert other.history.curves == {"loss": [(3, 1.5)]}


def test_bad_settings():
    with pytest.raises(ValueError, match="images must not be negative, got -1"):
        RunFigures(-1)

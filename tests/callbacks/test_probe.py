import copy
import warnings

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from cxrssl.analysis import RidgeProbe, multilabel_scores
from cxrssl.callbacks import OnlineProbe
from cxrssl.errors import InputError
from tests.callbacks.tiny import MemoryLogger, TinyData, TinyObjective, train

MACRO = "probe/linear/auroc/macro"


class Readings(Callback):
    """Notes when the probe's values change hands."""

    def __init__(self):
        self.steps = []

    def watch(self, probe, monkeypatch):
        read = OnlineProbe._read

        def noted(self_, trainer, *args):
            self.steps.append(trainer.global_step)
            return read(self_, trainer, *args)

        monkeypatch.setattr(OnlineProbe, "_read", noted)
        return probe


def test_training_is_the_same_bit_for_bit(tmp_path):
    states = []
    for callbacks in ([], [OnlineProbe(every_n_steps=1)]):
        torch.manual_seed(0)
        objective = TinyObjective()
        torch.manual_seed(1)
        train(objective, TinyData(), callbacks, tmp_path)
        states.append((objective.state_dict(), torch.get_rng_state()))
    (plain, plain_rng), (probed, probed_rng) = states
    assert all(torch.equal(plain[name], probed[name]) for name in plain)
    assert torch.equal(plain_rng, probed_rng)


def test_modes_are_put_back_even_after_a_failure(tmp_path, monkeypatch):
    objective = TinyObjective()

    def fail(images, pooling):
        objective.eval()
        raise RuntimeError("no features today")

    monkeypatch.setattr(objective, "embed", fail)
    with pytest.raises(RuntimeError, match="no features today"):
        train(objective, TinyData(), [OnlineProbe()], tmp_path)
    assert objective.encoder.dropout.training
    assert not objective.frozen.training


def test_logs_the_scores_of_every_finding(tmp_path):
    objective, probe = TinyObjective(), OnlineProbe(at_start=False)
    logger = MemoryLogger()
    trainer = train(objective, TinyData(), [probe], tmp_path, logger=logger, max_epochs=1)
    data = TinyData()
    features = objective.embed(data.images).detach().numpy()
    np.testing.assert_allclose(probe.features, features, rtol=1e-5)
    labels = data.targets.numpy()
    prediction = RidgeProbe().fit(probe.features, labels).predict(probe.features)
    expected = multilabel_scores(prediction, labels, data.labels)["auroc"]
    logged = {name: value for step, name, value in logger.points if step == 4}
    for name in ("macro", "Edema", "Pleural Effusion"):
        key = f"probe/linear/auroc/{name.replace(' ', '_')}"
        assert logged[key] == pytest.approx(expected[name])
        assert float(trainer.callback_metrics[key]) == pytest.approx(expected[name])
    names = {key for key in trainer.callback_metrics if key.startswith("probe/")}
    assert len(names) == 2 * 2 * 3


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [0, 4, 8, 12]),
        ({"every_n_epochs": 2}, [0, 8]),
        ({"every_n_steps": 5}, [0, 5, 10]),
        ({"at_start": False}, [4, 8, 12]),
    ],
)
def test_when_it_reads(tmp_path, monkeypatch, settings, steps):
    readings = Readings()
    probe = readings.watch(OnlineProbe(guard=False, **settings), monkeypatch)
    train(TinyObjective(), TinyData(), [probe], tmp_path, max_epochs=3)
    assert readings.steps == steps


def test_accumulated_micro_batches_read_once_a_step(tmp_path, monkeypatch):
    readings = Readings()
    probe = readings.watch(OnlineProbe(every_n_steps=1, at_start=False), monkeypatch)
    train(TinyObjective(), TinyData(), [probe], tmp_path, max_epochs=1, accumulate_grad_batches=2)
    assert readings.steps == [1, 2]


def test_a_checkpoint_may_monitor_it_and_a_resumed_run_knows_it(tmp_path, monkeypatch):
    def checkpoint():
        return ModelCheckpoint(tmp_path, monitor=MACRO, mode="max", filename="best")

    probe = OnlineProbe(guard=False)
    options = {"enable_checkpointing": True}
    trainer = train(TinyObjective(), TinyData(), [probe, checkpoint()], tmp_path, **options)
    best = trainer.checkpoint_callback.best_model_path
    assert trainer.checkpoint_callback.best_model_score == pytest.approx(
        float(trainer.callback_metrics[MACRO]), abs=1
    )

    readings, resumed = Readings(), OnlineProbe(guard=False)
    readings.watch(resumed, monkeypatch)
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[resumed, checkpoint()],
        max_epochs=3,
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        trainer.fit(TinyObjective(), TinyData(), ckpt_path=best, weights_only=True)
    assert 0 not in readings.steps
    assert resumed.state_dict()["start"] == probe.state_dict()["start"]


def test_state_is_plain(tmp_path):
    probe = OnlineProbe()
    train(TinyObjective(), TinyData(), [probe], tmp_path)
    state = copy.deepcopy(probe.state_dict())
    assert isinstance(state["start"], float)
    assert {type(value) for value in state["latest"].values()} == {float}
    other = OnlineProbe()
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_guard_warns_once_below_its_start():
    probe = OnlineProbe()
    probe._check_guard({MACRO: 0.8}, guard=True)
    probe._check_guard({MACRO: 0.7901}, guard=True)
    probe._check_guard({}, guard=True)
    with pytest.warns(UserWarning, match=r"macro AUROC is 0\.780, below the 0\.800"):
        probe._check_guard({MACRO: 0.78}, guard=True)
    probe._check_guard({MACRO: 0.5}, guard=True)


def test_guard_may_be_off():
    probe = OnlineProbe(guard=False)
    probe._check_guard({MACRO: 0.8}, guard=False)
    probe._check_guard({MACRO: 0.1}, guard=False)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (TinyData(labels=[]), "split 'train' has no labelled image"),
        (TinyData(splits=("train",)), "split 'val' has no labelled image"),
    ],
)
def test_one_warning_where_there_is_nothing_to_probe(tmp_path, data, reason):
    with pytest.warns(UserWarning, match=f"The online probe is skipped: the {reason}") as caught:
        train(TinyObjective(), data, [OnlineProbe()], tmp_path)
    assert len([w for w in caught if "online probe" in str(w.message)]) == 1


def test_a_loader_instead_of_a_data_module(tmp_path):
    loader = TinyData().train_dataloader()
    with pytest.warns(UserWarning, match="the data module has no probe images"):
        train(TinyObjective(), loader, [OnlineProbe()], tmp_path)


def test_a_module_that_does_not_embed(tmp_path, monkeypatch):
    monkeypatch.delattr(TinyObjective, "embed")
    with pytest.warns(UserWarning, match=r"the module has no embed\(\)"):
        train(TinyObjective(), TinyData(), [OnlineProbe()], tmp_path)


def test_features_that_are_not_finite_are_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(
        TinyObjective, "embed", lambda self, x, pooling: torch.full((len(x), 2), torch.nan)
    )
    with pytest.warns(UserWarning, match="Probe at step 0: features are not finite"):
        train(TinyObjective(), TinyData(), [OnlineProbe(every_n_epochs=9)], tmp_path)


def test_images_without_any_label_are_left_out(tmp_path):
    data, probe = TinyData(), OnlineProbe()
    data.targets[3] = torch.nan
    data.targets[5, 0] = torch.nan
    train(TinyObjective(), data, [probe], tmp_path)
    assert len(probe.features) == 15


def test_chosen_findings(tmp_path):
    probe = OnlineProbe(findings=["Pleural Effusion"])
    trainer = train(TinyObjective(), TinyData(), [probe], tmp_path)
    assert "probe/knn/auroc/Pleural_Effusion" in trainer.callback_metrics
    assert "probe/knn/auroc/Edema" not in trainer.callback_metrics


def test_unknown_findings(tmp_path):
    with pytest.raises(InputError, match="no labels of Oedema; findings must be among Edema"):
        train(TinyObjective(), TinyData(), [OnlineProbe(findings=["Oedema"])], tmp_path)


@pytest.mark.parametrize("what", ["validate", "test"])
def test_validate_and_test_return_the_scores(what):
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = Trainer(callbacks=[OnlineProbe()], enable_checkpointing=False, **options)
    (values,) = getattr(trainer, what)(TinyObjective(), TinyData(), verbose=False)
    assert 0.5 < values[MACRO] <= 1


def test_says_the_scores_in_one_line(tmp_path, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    train(TinyObjective(), TinyData(), [OnlineProbe()], tmp_path, max_epochs=1)
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Probe at step")]
    assert len(lines) == 2
    assert "kNN AUROC" in lines[0]
    assert "(16 train, 16 val images" in lines[0]


@pytest.mark.parametrize("setting", ["every_n_epochs", "every_n_steps", "k"])
def test_bad_settings(setting):
    with pytest.raises(ValueError, match=f"{setting} must be at least 1, got 0"):
        OnlineProbe(**{setting: 0})

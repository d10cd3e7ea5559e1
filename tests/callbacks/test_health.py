import pytest
import torch

from cxrssl.analysis import effective_rank, feature_spread
from cxrssl.callbacks import Health, OnlineProbe
from tests.callbacks.tiny import MemoryLogger, TinyData, TinyObjective, train


class Collapsing(TinyObjective):
    """Everything goes to one prototype."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.monitored = {"prototype_usage": torch.tensor(1 / 16), "other": torch.tensor(3)}
        return loss


@pytest.mark.parametrize("probe_first", [True, False])
def test_reads_the_features_of_every_probe(tmp_path, probe_first):
    probe, logger = OnlineProbe(guard=False), MemoryLogger()
    callbacks = [probe, Health()] if probe_first else [Health(), probe]
    trainer = train(TinyObjective(), TinyData(), callbacks, tmp_path, logger=logger)
    assert logger.steps("health/effective_rank") == [0, 4, 8]
    metrics = trainer.callback_metrics
    assert float(metrics["health/effective_rank"]) == pytest.approx(
        effective_rank(probe.features, centred=True)
    )
    assert float(metrics["health/feature_spread"]) == pytest.approx(feature_spread(probe.features))


def test_reads_training_images_where_there_is_no_probe(tmp_path, monkeypatch):
    monkeypatch.setattr("cxrssl.callbacks.health._FEWEST_IMAGES", 4)
    logger = MemoryLogger()
    train(TinyObjective(), TinyData(), [Health(3)], tmp_path, logger=logger)
    assert logger.steps("health/effective_rank") == [1, 4, 7]


def test_a_few_images_are_no_reading(tmp_path):
    trainer = train(TinyObjective(), TinyData(), [Health(1)], tmp_path)
    assert "health/effective_rank" not in trainer.callback_metrics


@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        ({"labels": torch.zeros(4, 2), "image": torch.zeros(4, 1, 8, 8)}, (4, 1, 8, 8)),
        ({"dino": {"global_crops": torch.zeros(4, 2, 1, 8, 8)}}, (4, 1, 8, 8)),
        ([torch.zeros(3), (torch.zeros(4, 1, 8, 8),)], (4, 1, 8, 8)),
    ],
)
def test_finds_the_images_of_a_batch(batch, shape):
    from cxrssl.callbacks.health import _first_images

    assert _first_images(batch).shape == shape
    assert _first_images({"labels": torch.zeros(4, 2), "failures": []}) is None


def test_logs_what_the_objective_monitors(tmp_path):
    logger = MemoryLogger()
    train(TinyObjective(), TinyData(), [Health(2)], tmp_path, logger=logger)
    assert logger.steps("health/teacher_entropy") == [1, 3, 5, 7]


def test_accumulated_micro_batches_count_once(tmp_path):
    logger = MemoryLogger()
    options = {"logger": logger, "accumulate_grad_batches": 2}
    train(TinyObjective(), TinyData(), [Health(1)], tmp_path, **options)
    assert logger.steps("health/teacher_entropy") == [1, 2, 3, 4]


def test_does_not_change_training(tmp_path):
    states = []
    for callbacks in ([], [Health(1)]):
        torch.manual_seed(0)
        objective = TinyObjective()
        train(objective, TinyData(), callbacks, tmp_path)
        states.append(objective.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_warns_by_default(tmp_path):
    with pytest.warns(UserWarning, match="Step 3: Every image of the batch has the same proto"):
        trainer = train(Collapsing(), TinyData(), [Health(1, step_patience=3)], tmp_path)
    assert trainer.global_step == 8


def test_may_stop_the_run(tmp_path):
    health = Health(1, alarm="stop", step_patience=3)
    with pytest.warns(UserWarning, match="Every image of the batch has the same prototype"):
        trainer = train(Collapsing(), TinyData(), [health], tmp_path)
    assert trainer.global_step == 3


def test_may_be_silent(tmp_path):
    train(Collapsing(), TinyData(), [Health(1, alarm="off", step_patience=1)], tmp_path)


def test_an_untrained_encoder_raises_no_alarm(tmp_path):
    callbacks = [OnlineProbe(every_n_steps=1, guard=False), Health(1)]
    train(TinyObjective(), TinyData(), callbacks, tmp_path, max_epochs=3)


def test_state_survives():
    health = Health()
    health.alarms.features(50, 0.5)
    other = Health()
    other.load_state_dict(health.state_dict())
    assert other.state_dict() == health.state_dict()


def test_bad_settings():
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        Health(0)
    with pytest.raises(ValueError, match="alarm must be 'warn', 'stop' or 'off', got 'loud'"):
        Health(alarm="loud")

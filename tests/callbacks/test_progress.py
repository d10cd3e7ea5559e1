import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from cxrssl.callbacks import OnlineProbe, ProgressBar
from cxrssl.callbacks.progress import count_images
from tests.callbacks.tiny import TinyData, TinyObjective, train

BATCH = {"image": torch.zeros(8, 1, 2, 2)}


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("cxrssl.callbacks.progress.time.perf_counter", lambda: clock.now)
    return clock


@pytest.fixture
def bar():
    bar = ProgressBar(refresh_rate=0)
    bar._trainer = SimpleNamespace(
        world_size=2,
        global_step=0,
        log_every_n_steps=0,
        accumulate_grad_batches=1,
        progress_bar_metrics={"loss": 9.0, "v_num": 3, "val": 1.0},
        loggers=[],
    )
    bar._steps = 100
    bar.train_progress_bar = Tqdm(disable=True)
    return bar


def step(bar, clock, wait, work):
    clock.now += wait
    bar.on_train_batch_start(bar.trainer, None, BATCH, 0)
    clock.now += work
    bar._trainer.global_step += 1
    bar.on_train_batch_end(bar.trainer, None, {"loss": torch.tensor(1.25)}, BATCH, 0)


def test_speed_wait_and_time_left(bar, clock):
    step(bar, clock, 5, 5)  # the first batch warms up
    assert bar.images_per_s == 0
    assert math.isinf(bar.seconds_left)
    for _ in range(3):
        step(bar, clock, 1, 3)
    assert bar.images_per_s == pytest.approx(2 * 8 / 4)  # two processes of 8 images in 4 s
    assert bar.data_wait == pytest.approx(0.25)
    assert bar.seconds_left == pytest.approx(96 * 4)
    assert bar.get_metrics(bar.trainer, None) == {
        "loss": "1.25",
        "val": 1.0,
        "img/s": "4",
        "wait": "25%",
        "eta": "00:07",
    }


def test_only_the_last_batches_count(bar, clock):
    step(bar, clock, 0, 1)
    step(bar, clock, 50, 1)
    for _ in range(50):
        step(bar, clock, 0, 1)
    assert bar.data_wait == 0


@pytest.mark.parametrize(
    "pause",
    [
        lambda bar: bar.restart_clock(),
        lambda bar: bar.on_save_checkpoint(bar.trainer, None, {}),
    ],
)
def test_pauses_do_not_count(bar, clock, pause):
    step(bar, clock, 0, 1)
    step(bar, clock, 1, 1)
    pause(bar)
    step(bar, clock, 100, 1)
    step(bar, clock, 1, 1)
    assert bar.data_wait == pytest.approx(0.5)


def test_accumulation_multiplies_the_time_left(bar, clock):
    bar._trainer.accumulate_grad_batches = 3
    step(bar, clock, 0, 1)
    step(bar, clock, 0, 1)
    assert bar.seconds_left == pytest.approx(98 * 3)


def test_long_and_endless_runs(bar, clock):
    step(bar, clock, 0, 1)
    step(bar, clock, 0, 3600)
    bar._steps = 52
    assert bar.get_metrics(bar.trainer, None)["eta"] == "50:00"
    bar._steps = math.inf
    assert "eta" not in bar.get_metrics(bar.trainer, None)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (torch.zeros(3, 2), 3),
        ({"a": {"b": torch.zeros(4)}, "c": torch.zeros(5)}, 4),
        ([torch.tensor(1.0), (torch.zeros(2, 1),)], 2),
        ({"failures": []}, 0),
    ],
)
def test_count_images(batch, expected):
    assert count_images(batch) == expected


class Shown(Callback):
    def on_train_end(self, trainer, pl_module):
        self.bar = trainer.progress_bar_callback
        self.metrics = self.bar.get_metrics(trainer, pl_module)


def test_in_a_run(tmp_path, capsys):
    shown = Shown()
    callbacks = [ProgressBar(refresh_rate=1), OnlineProbe(every_n_steps=2), shown]
    trainer = train(TinyObjective(), TinyData(), callbacks, tmp_path, enable_progress_bar=True)
    assert list(shown.metrics) == ["loss", "img/s", "wait", "eta"]
    assert shown.metrics["eta"] == "00:00"
    assert float(trainer.callback_metrics["speed/images_per_s"]) > 0
    assert 0 <= float(trainer.callback_metrics["speed/data_wait"]) <= 1
    out = capsys.readouterr().out
    assert "img/s=" in out
    assert "v_num" not in out

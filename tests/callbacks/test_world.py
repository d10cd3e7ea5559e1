import itertools
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from cxrssl.analysis import domain_sensitivity
from cxrssl.callbacks import WorldReport
from cxrssl.errors import InputError
from tests.analysis.worlds import AlikeViews, Oracle, WorldOfNumbers, world_image


class Unreadable(list):
    """Images, of which None cannot be read."""

    def __getitem__(self, number):
        image = super().__getitem__(number)
        if image is None:
            raise InputError(f"cannot read the image {number}")
        return image


class World(LightningModule):
    """An oracle that can be tested by Lightning."""

    def __init__(self):
        super().__init__()
        self.oracle = Oracle(row=8)
        self.views = WorldOfNumbers()
        self.modes = set()

    def targets(self, images):
        return self.oracle.targets(images)

    def encode_context(self, images, index=None):
        return self.oracle.encode_context(images, index)

    def predict(self, context, **asked):
        self.modes.add((self.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        torch.rand(1)  # no model should, but none may disturb what comes after
        return self.oracle.predict(context, **asked)

    def test_step(self, batch, batch_idx):
        self.log("test/loss", batch.mean())


class Data(LightningDataModule):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def test_dataloader(self):
        return DataLoader(torch.zeros(2))

    def rows(self, split):
        assert split == "test"
        return pd.DataFrame({"path": [str(n) for n in range(len(self.images))]})

    def shown_source(self, rows):
        assert len(rows) == len(self.images)
        return Unreadable(self.images)


IMAGES = [world_image(first, side=8) for first in range(0, 200, 40)]


def run(folder, callback, module=None, data=None, **options):
    module = World() if module is None else module
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=[callback],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    (values,) = trainer.test(module, data or Data(IMAGES), verbose=False)
    return values


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_a_table_and_a_figure_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    values = run(tmp_path, WorldReport(images=3, candidates=8, pairs=2))
    assert files(tmp_path) == ["world.csv", "world.png"]
    table = pd.read_csv(tmp_path / "world.csv")
    names = ["task", "condition", "measure", "value", "low", "high", "chance", "images"]
    assert list(table) == names
    assert table["task"].unique().tolist() == ["domain", "layout", "local"]
    number, said = next(
        (number, line)
        for number, line in enumerate(caplog.messages)
        if line.startswith("World model on 3 test images")
    )
    said_first = caplog.messages[:number]
    assert str(tmp_path / "world.csv") in said
    assert "recall@1 " in said
    assert "error" not in said
    assert len(said.splitlines()) <= 23  # 20 rows, and what frames them
    assert any(line.startswith("Measuring what the world model knows on 3") for line in said_first)
    assert values["test/world/layout/top-1"] == 1
    assert values["test/world/layout/error"] == 0
    logged = {name for name in values if name.startswith("test/world/")}
    scores = ("top-1", "top-5", "patch_distance", "error", "top-1/gain", "error/gain")
    assert logged == {
        *(f"test/world/domain/recall@{k}" for k in ("1", "3", "5", "1/gain")),
        *(f"test/world/{task}/{name}" for task in ("layout", "local") for name in scores),
    }


def test_gains_are_logged_with_their_interval(tmp_path):
    values = run(tmp_path, WorldReport(images=5, candidates=8, pairs=2))
    table = pd.read_csv(tmp_path / "world.csv")
    gain = table[table["condition"].eq("offset minus other image") & table["measure"].eq("top-1")]
    for name, column in (("gain", "value"), ("gain_low", "low"), ("gain_high", "high")):
        logged = values[f"test/world/layout/top-1/{name}"]
        np.testing.assert_allclose(logged, gain[column].item(), rtol=1e-6)


def test_measures_evenly_spaced_images_that_can_be_read(tmp_path):
    images = [IMAGES[0], IMAGES[1], None, IMAGES[3], IMAGES[4]]
    values = run(tmp_path, WorldReport(3, 8, 2, seed=5), data=Data(images))
    expected = domain_sensitivity(World(), [images[0], images[4]], candidates=8, seed=5)
    recall = expected.recall["true action"].value
    np.testing.assert_allclose(values["test/world/domain/recall@1"], recall[0], rtol=1e-6)


def test_the_model_is_in_evaluation_mode_without_gradient(tmp_path):
    module = World()
    run(tmp_path, WorldReport(2, 4, 1), module, precision="bf16-mixed")
    assert module.modes == {(False, False, True)}


def test_leaves_no_trace_in_random_numbers(tmp_path):
    states = []
    for callback in (Callback(), WorldReport(2, 4, 1)):
        torch.manual_seed(0)
        run(tmp_path, callback)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


class Lacking:
    """An object without one of its attributes."""

    def __init__(self, whole, name):
        self._whole, self._name = whole, name

    def __getattr__(self, name):
        if name == self._name:
            raise AttributeError(name)
        return getattr(self._whole, name)


OF_VIEWS = (
    *("crop_pair", "distort", "eval_view", "image_size", "jitter", "masking", "mean"),
    *("patch_size", "std", "to_tensor"),
)


@pytest.mark.parametrize("lacking", [*OF_VIEWS, "views", "targets", "encode_context", "predict"])
def test_other_modules_are_left_alone(tmp_path, lacking):
    module = World()
    if lacking in OF_VIEWS:
        module.views = Lacking(WorldOfNumbers(), lacking)
    elif lacking == "views":
        del module.views
    else:
        kept = {name: getattr(World, name) for name in vars(World) if name != lacking}
        module = type("Other", (LightningModule,), {**kept, "__init__": LightningModule.__init__})()
        module.views = WorldOfNumbers()
    values = run(tmp_path, WorldReport(), module)
    assert files(tmp_path) == []
    assert set(values) == {"test/loss"}


@pytest.mark.parametrize(("images", "options"), [(0, {}), (3, {"fast_dev_run": True})])
def test_can_be_switched_off_and_leaves_trials_alone(tmp_path, images, options):
    module = World()
    run(tmp_path, WorldReport(images), module, **options)
    assert files(tmp_path) == []
    assert not module.modes


def test_data_without_single_images_is_left_alone(tmp_path):
    values = run(tmp_path, WorldReport(), data=DataLoader(torch.zeros(2)))
    assert set(values) == {"test/loss"}


def test_nothing_readable_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"not complete: InputError.*0 of the 2 test images can"):
        values = run(tmp_path, WorldReport(), data=Data([None, None]))
    assert set(values) == {"test/loss"}
    assert files(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("NaN")])
def test_an_error_ends_no_test(tmp_path, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("cxrssl.analysis.world.layout_awareness", fail)
    sent = spy_on_broadcast(monkeypatch)
    with pytest.warns(UserWarning, match=f"not complete: {re.escape(repr(error))}"):
        values = run(tmp_path, WorldReport(2, 4, 1))
    assert set(values) == {"test/loss"}
    assert sent == [{}]


def spy_on_broadcast(monkeypatch):
    """Return what will have been sent to the other processes as a dictionary."""
    sent = []

    def broadcast(self, obj, src=0):
        if isinstance(obj, dict):
            sent.append(obj)
        return obj

    monkeypatch.setattr(SingleDeviceStrategy, "broadcast", broadcast)
    return sent


def test_what_was_measured_survives_a_figure_that_cannot_be_drawn(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("no font")

    monkeypatch.setattr("cxrssl.callbacks.world.plot_world", fail)
    with pytest.warns(UserWarning, match="not complete: RuntimeError.'no font'"):
        values = run(tmp_path, WorldReport(2, 4, 1))
    assert files(tmp_path) == ["world.csv"]
    assert values["test/world/layout/top-1"] == 1


def test_views_without_versions_leave_domain_out(tmp_path):
    module = World()
    module.views = AlikeViews()
    with pytest.warns(UserWarning, match="without domain sensitivity: the versions of an image"):
        values = run(tmp_path, WorldReport(3, 4, 1), module)
    assert files(tmp_path) == ["world.csv", "world.png"]
    assert pd.read_csv(tmp_path / "world.csv")["task"].unique().tolist() == ["layout", "local"]
    assert not any("domain" in name for name in values)


@pytest.mark.parametrize(("seconds", "says"), [(30, True), (1, False)])
def test_says_how_long_a_long_report_takes(tmp_path, caplog, monkeypatch, seconds, says):
    caplog.set_level("INFO", logger="lightning.pytorch.utilities.rank_zero")
    clock = itertools.count(step=seconds)
    monkeypatch.setattr("cxrssl.callbacks.world.time", SimpleNamespace(monotonic=clock.__next__))
    run(tmp_path, WorldReport(4, 2, 1))
    told = [line for line in caplog.messages if "takes about 2 min" in line]
    assert len(told) == says


def test_two_processes_do_not_wait_for_a_first_one_that_fails(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about starting processes; the first one warns itself
        trainer = Trainer(
            accelerator="cpu",
            strategy="ddp_spawn",
            devices=2,
            default_root_dir=tmp_path,
            callbacks=[WorldReport(2, 4, 1), Leave()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.test(Failing(), Data(IMAGES), verbose=False)
    assert trainer.callback_metrics.keys() == {"test/loss"}


class Leave(Callback):
    """Ends the talk between processes in order: one that exits in the middle of it may abort."""

    def teardown(self, trainer, pl_module, stage):
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class Failing(World):
    """A world model for which the first process runs out of memory."""

    def predict(self, context, **asked):
        if self.trainer.is_global_zero:
            raise RuntimeError("out of memory")
        return super().predict(context, **asked)


def test_bad_settings():
    for images in (1, -1):
        with pytest.raises(InputError, match=f"images must be at least 2, or 0 .*got {images}"):
            WorldReport(images)
    with pytest.raises(InputError, match="candidates must be at least 2, got 1"):
        WorldReport(candidates=1)
    with pytest.raises(InputError, match="pairs must be at least 1, got 0"):
        WorldReport(pairs=0)
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        WorldReport(seed=-1)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        WorldReport(batch_size=0)

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.utils.data import DataLoader

from cxrssl.analysis import domain_sensitivity
from cxrssl.callbacks import WorldReport
from cxrssl.errors import InputError
from tests.analysis.worlds import Oracle, WorldOfNumbers, world_image


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

    def make_source(self, rows):
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
    assert list(table) == ["task", "condition", "measure", "value", "low", "high", "chance"]
    assert table["task"].unique().tolist() == ["domain", "layout", "local"]
    said = next(line for line in caplog.messages if line.startswith("World model on 3 test images"))
    assert str(tmp_path / "world.csv") in said
    assert "recall@1 " in said
    assert "error at distance" not in said
    assert values["test/world/layout/top-1"] == 1
    assert values["test/world/layout/error"] == 0
    logged = {name for name in values if name.startswith("test/world/")}
    assert logged == {
        *(f"test/world/domain/recall@{k}" for k in (1, 3, 5)),
        *(f"test/world/layout/{name}" for name in ("top-1", "top-5", "patch_distance", "error")),
        *(f"test/world/local/{name}" for name in ("top-1", "top-5", "patch_distance")),
    }


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


@pytest.mark.parametrize("lacking", ["crop_pair", "views"])
def test_other_modules_are_left_alone(tmp_path, lacking):
    module = World()
    module.views = WorldOfNumbers() if lacking == "views" else object()
    if lacking == "views":
        del module.views
    values = run(tmp_path, WorldReport(), module)
    assert files(tmp_path) == []
    assert set(values) == {"test/loss"}


def test_data_without_single_images_is_left_alone(tmp_path):
    values = run(tmp_path, WorldReport(), data=DataLoader(torch.zeros(2)))
    assert set(values) == {"test/loss"}


def test_nothing_readable_is_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="left out: none of the 2 test images can be read"):
        values = run(tmp_path, WorldReport(), data=Data([None, None]))
    assert set(values) == {"test/loss"}
    assert files(tmp_path) == []


def test_bad_settings():
    with pytest.raises(InputError, match="images must be at least 1, got 0"):
        WorldReport(0)
    with pytest.raises(InputError, match="candidates must be at least 2, got 1"):
        WorldReport(candidates=1)
    with pytest.raises(InputError, match="pairs must be at least 1, got 0"):
        WorldReport(pairs=0)
    with pytest.raises(InputError, match="seed must be at least 0, got -1"):
        WorldReport(seed=-1)

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from cxrssl.callbacks import PredictionFile
from cxrssl.data import CXRDataModule
from cxrssl.data.phantom import Phantom, write_png
from tests.callbacks.tiny import TinyData, TinyObjective
from tests.objectives.training import quiet_trainer
from tests.tasks.small import FINDINGS, STRUCTURES, small_classification, small_segmentation

pytestmark = pytest.mark.filterwarnings("ignore:Couldn.t infer the batch indices")
N_IMAGES, CORRUPT = 7, 3


@pytest.fixture
def index(tmp_path):
    """Return an index of radiographs, of which one is corrupt and some have no label."""
    for number in range(N_IMAGES):
        write_png(Phantom(48), number, tmp_path / f"{number}.png")
    (tmp_path / f"{CORRUPT}.png").write_bytes(b"nothing")
    table = pd.DataFrame({"path": [f"{number}.png" for number in range(N_IMAGES)]})
    table["patient_id"] = [f"Smith-{number}" for number in range(N_IMAGES)]
    table["split"] = ["test", "train", "val", "train", "train", "test", "val"]
    for finding in FINDINGS:
        table[finding] = [0, 1, np.nan, 1, 0, np.nan, 1]
    for structure in STRUCTURES:
        table[f"mask/{structure}"] = [f"{n}.png" for n in range(N_IMAGES)]
    table.to_csv(tmp_path / "index.csv", index=False)
    return tmp_path / "index.csv"


def predicted(task, index, folder, **options):
    settings = {"batch_size": 2, "num_workers": 0, "max_corrupt": 1.0} | options
    data = CXRDataModule(str(index), views=task.views, **settings)
    trainer = quiet_trainer(callbacks=[PredictionFile()], default_root_dir=folder)
    with pytest.warns(UserWarning, match="could not be read"):
        trainer.predict(task, datamodule=data, return_predictions=False)
    return data, pd.read_parquet(folder / "predictions.parquet")


def test_probabilities_of_all_images_in_the_order_of_the_index(index, tmp_path):
    task = small_classification()
    data, table = predicted(task, index, tmp_path)
    assert list(table) == ["path", *FINDINGS]
    assert table.index.tolist() == list(range(N_IMAGES))
    assert table["path"].tolist() == data.index["path"].tolist()
    assert table.isna().any(axis=1).tolist() == [n == CORRUPT for n in range(N_IMAGES)]
    with torch.no_grad():
        probabilities = task.eval()(data.images([6], "all")).sigmoid()[0]
    np.testing.assert_allclose(table.loc[6, FINDINGS].to_numpy(float), probabilities, rtol=1e-5)
    assert b"Smith" not in (tmp_path / "predictions.parquet").read_bytes()


def test_areas_of_structures(index, tmp_path):
    task = small_segmentation()
    data, table = predicted(task, index, tmp_path)
    assert list(table) == ["path", *STRUCTURES]
    with torch.no_grad():
        masks = task.masks_of(task.eval()(data.images([5], "all")))
    np.testing.assert_allclose(table.loc[5, STRUCTURES].to_numpy(float), masks[0].mean((1, 2)))


class Shuffled(Callback):
    """Hands the batches over in another order, as several workers might."""

    def on_predict_epoch_end(self, trainer, pl_module):
        trainer.predict_loop._predictions[0].reverse()


def test_the_order_of_the_batches_does_not_matter(index, tmp_path):
    task = small_classification()
    _, expected = predicted(task, index, tmp_path)
    data = CXRDataModule(str(index), views=task.views, batch_size=2, num_workers=0, max_corrupt=1.0)
    callbacks = [Shuffled(), PredictionFile()]
    trainer = quiet_trainer(callbacks=callbacks, default_root_dir=tmp_path / "other")
    with pytest.warns(UserWarning, match="could not be read"):
        trainer.predict(task, datamodule=data)
    table = pd.read_parquet(tmp_path / "other" / "predictions.parquet")
    pd.testing.assert_frame_equal(table, expected)


def test_a_process_without_images_writes_nothing(tmp_path):
    task = small_classification()
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.datamodule = object()
    PredictionFile().write_on_epoch_end(trainer, task, [], [])
    assert not list(tmp_path.iterdir())


def test_what_is_no_task_or_has_no_index_is_left_alone(tmp_path):
    trainer = quiet_trainer(default_root_dir=tmp_path)
    PredictionFile().write_on_epoch_end(trainer, small_classification(), [{}], [])
    trainer.datamodule = TinyData()
    PredictionFile().write_on_epoch_end(trainer, TinyObjective(), [{}], [])
    assert not list(tmp_path.iterdir())

import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.data.features import FeatureDataset, FeatureStore, FeatureWriter, fingerprint
from cxrssl.data.sampler import BatchPlan
from cxrssl.data.targets import TargetTable
from cxrssl.data.validate import validate_index
from cxrssl.errors import InputError
from cxrssl.views.targets import Targets
from tests.data.labelled import write_labelled

SHAPES = [(3, 5), (1, 7)]


def tokens(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [30 * torch.randn(n, *shape, generator=generator) for shape in SHAPES]


def write(folder, dtype="float32", levels=None, corrupt=(4,)):
    """Write a store of six images in two batches, the last images first."""
    levels = tokens() if levels is None else levels
    writer = FeatureWriter(folder, 6, SHAPES, dtype, {"encoder": "abc"})
    readable = torch.tensor([number not in corrupt for number in range(6)])
    for rows in ([5, 1, 3], [0, 2, 4]):
        writer.write(np.array(rows), [level[rows] for level in levels], readable[rows])
    return writer


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_numbers_come_back_as_they_are_rounded(tmp_path, dtype, tolerance):
    store = write(tmp_path / "store", dtype).finish()
    rows = np.array([4, 0, 4])
    for read, level in zip(store.read(rows), tokens(), strict=True):
        assert read.dtype == torch.float32
        assert torch.equal(read, level[rows].to(getattr(torch, dtype)).float())
        assert_close(read, level[rows], rtol=tolerance, atol=0)


def test_float32_comes_back_exactly(tmp_path):
    store = write(tmp_path / "store").finish()
    for read, level in zip(store.read(np.arange(6)), tokens(), strict=True):
        assert torch.equal(read, level)
    assert store.readable.tolist() == [True] * 4 + [False, True]
    assert len(store) == 6
    assert store.description == {"encoder": "abc", "dtype": "float32", "shapes": [[3, 5], [1, 7]]}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_that_do_not_fit_are_refused(tmp_path, dtype):
    writer = FeatureWriter(tmp_path / "store", 6, SHAPES, dtype, {})
    for value in {"float16": (1e5, torch.nan), "bfloat16": (torch.nan,)}[dtype]:
        broken = [torch.full((6, *shape), value) for shape in SHAPES]
        with pytest.raises(InputError, match=f"do not fit {dtype}, or the encoder makes NaN"):
            writer.write(np.arange(6), broken, torch.ones(6, dtype=torch.bool))


def test_a_killed_write_leaves_no_store_and_does_not_disturb_the_next(tmp_path):
    folder = tmp_path / "cache" / "store"
    write(folder, levels=tokens(seed=1))
    assert not folder.exists()
    with pytest.raises(InputError, match="store holds no features"):
        FeatureStore(folder)
    store = write(folder).finish()
    assert torch.equal(store.read(np.arange(6))[0], tokens()[0])
    assert [path.name for path in folder.parent.iterdir()] == ["store"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "features.json").write_text("{"),
        lambda folder: (folder / "features.json").write_text("{}"),
        lambda folder: (folder / "features.json").unlink(),
        lambda folder: (folder / "level1.npy").unlink(),
        lambda folder: cut(folder / "level0.npy"),
        lambda folder: cut(folder / "readable.npy"),
    ],
)
def test_a_damaged_store_is_an_error(tmp_path, damage):
    store = write(tmp_path / "store").finish()
    damage(store.folder)
    with pytest.raises(InputError, match=r"store holds no features .*: delete it, and they are"):
        FeatureStore(store.folder)


def test_a_full_disk_is_told_before_anything_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2.5e9))
    message = (
        r"of 100000 images take 4\.0 GB and .*cache has 2\.5 GB left: choose another cache, a head"
    )
    with pytest.raises(InputError, match=message):
        FeatureWriter(tmp_path / "cache" / "store", 100_000, [(20, 1000)], "float16", {})


def test_a_disk_that_fills_up_is_an_error_not_a_crash(tmp_path, monkeypatch):
    writer = write(tmp_path / "store")

    def full(self, *arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FeatureWriter, "_put", full)
    with pytest.raises(InputError, match=r"cannot be written to .* \(No space left on device\)"):
        writer.write(np.arange(6), tokens(), torch.ones(6, dtype=torch.bool))


def test_a_folder_that_is_not_shared_is_an_error(tmp_path):
    writer = FeatureWriter(tmp_path / "elsewhere", 6, SHAPES, "float32", {}, owner=False)
    with pytest.raises(InputError, match="a folder with room that every process can write to"):
        writer.write(np.arange(6), tokens(), torch.ones(6, dtype=torch.bool))


def test_a_cache_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(InputError, match=r"cannot be written to .*cache/\.store\.part"):
        FeatureWriter(tmp_path / "cache" / "store", 6, SHAPES, "float32", {})


def test_a_store_travels_by_its_name(tmp_path):
    store = write(tmp_path / "store").finish()
    sent = pickle.dumps(store)
    assert len(sent) < 500
    assert torch.equal(pickle.loads(sent).read(np.array([3]))[1], tokens()[1][[3]])


def test_batches_are_features_with_targets(tmp_path):
    index = validate_index(write_labelled(tmp_path)[:6])
    store = write(tmp_path / "store").finish()
    table = TargetTable(index.iloc[[4, 1, 2]], Targets(findings=("nodule", "edema"), text=True))
    dataset = FeatureDataset(store, np.array([4, 1, 2]), table)
    images = np.array([2, 0])
    batch = dataset[BatchPlan(0, 0, 0, images)]
    assert len(dataset) == 3
    for level, read in zip(tokens(), batch["levels"], strict=True):
        assert torch.equal(read, level[[2, 4]])
    assert batch["image_number"].tolist() == [2, 0]
    assert batch["readable"].tolist() == [True, False]
    assert batch["labels"][0].tolist() == [0, 0]
    assert batch["labels"][1].isnan().all()
    assert batch["text"] == ["Image 2.", "Image 4."]
    assert batch["failures"] == []
    batch["image_number"][0] = 7
    assert images[0] == 2


def test_an_image_without_features_is_never_given_another_s(tmp_path):
    store = write(tmp_path / "store").finish()
    table = TargetTable(validate_index(write_labelled(tmp_path)[:3]), Targets(("nodule",)))
    with pytest.raises(InputError, match=r"2 of 3 images have no features in .*cache_features"):
        FeatureDataset(store, np.array([1, -1, -1]), table)


def test_masks_have_no_features(tmp_path):
    store = write(tmp_path / "store").finish()
    table = TargetTable(validate_index(write_labelled(tmp_path)[:1]), Targets((), ("heart",)))
    with pytest.raises(InputError, match="use no cache"):
        FeatureDataset(store, np.array([0]), table)


def test_names_depend_on_every_entry_and_not_on_their_order():
    first = {"encoder": "abc", "levels": [1, 2]}
    assert fingerprint(first) == fingerprint({"levels": [1, 2], "encoder": "abc"})
    assert fingerprint(first) != fingerprint({"encoder": "abc", "levels": [2, 1]})
    # What `b2sum -l 96` says of the two characters.
    assert fingerprint({}) == "bf78e4a953b40eee238ca2e9"

"""Training from a store shows what training from the files shows."""

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from cxrssl.data import CXRDataModule, NIHChestXray14, PhantomDataModule
from cxrssl.packing.options import PackOptions
from cxrssl.packing.pack import pack
from tests.data import labelled, stand_ins
from tests.data.releases import test_nih

root = test_nih.root
ONE = PackOptions(workers=1)


def same(ours, theirs):
    """Tell whether two batches, or what is in them, are bit-equal."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(
            torch.nan_to_num(ours.double(), 7), torch.nan_to_num(theirs.double(), 7)
        )
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def loaders(data):
    """Return every loader of a data module."""
    probes = {split: data.probe_dataloader(split) for split in ("train", "val")}
    return {
        "train": data.train_dataloader(),
        "val": data.val_dataloader(),
        "test": data.test_dataloader(),
        "predict": data.predict_dataloader(),
        "label": data.label_dataloader("val"),
        **probes,
    }


def assert_same_batches(files, store):
    ours, theirs = loaders(store), loaders(files)
    for name, loader in theirs.items():
        expected = list(loader)
        assert len(expected) == len(ours[name])
        assert same(list(ours[name]), expected), name


def test_an_index_whose_splits_and_choices_follow_the_paths(tmp_path):
    index = stand_ins.write_index(tmp_path)
    frame = pd.read_csv(index).drop(columns="split")
    frame["path"] = [path.rpartition("/")[2] for path in frame["path"]]
    frame.to_csv(index, index=False)
    # No patients: splits, subset and probed images are chosen by the names of files.
    make = partial(
        stand_ins.data_module,
        split=(0.5, 0.3, 0.2),
        subset=0.7,
        probe_images=5,
    )
    pack(CXRDataModule(index), tmp_path / "store", ONE)
    assert_same_batches(make(index), make(str(tmp_path / "store")))
    again = make(index, root=str(tmp_path / "store"))
    assert_same_batches(make(index), again)
    many = make(str(tmp_path / "store"), num_workers=2)
    assert same(list(many.train_dataloader()), list(make(index).train_dataloader()))


def test_a_folder_and_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    stand_ins.write_images(tmp_path / "a", 20)
    for out, source in enumerate(["a", "a/*.png", str(tmp_path / "a" / "0?[0-9].png")]):
        out = str(out)
        pack(CXRDataModule(source), out, ONE)
        files, store = (stand_ins.data_module(each, split=(1, 0, 0)) for each in (source, out))
        assert same(list(store.train_dataloader()), list(files.train_dataloader()))


@pytest.mark.parametrize("structures", [(), ("heart",)])
def test_tasks_with_labels_reports_and_masks(tmp_path, structures):
    masks = [f"{n:03d}_heart.png" if n % 3 else None for n in range(labelled.N)]
    masks[4] = "-1"
    labelled.write_labelled(tmp_path, **{"mask/heart": masks}, nodule=labelled.UNLABELLED)
    pack(CXRDataModule(str(tmp_path / "index.csv")), tmp_path / "store", ONE)
    views = labelled.views(labelled.FINDINGS, structures, text=True)
    files = labelled.data_module(tmp_path, views=views)
    store = CXRDataModule(str(tmp_path / "store"), views=views, batch_size=4, num_workers=0, seed=5)
    assert store.structures == files.structures
    assert_same_batches(files, store)


def test_a_release(root, tmp_path_factory):
    out = str(tmp_path_factory.mktemp("out") / "store")
    files = NIHChestXray14(str(root))
    pack(files, out, ONE)
    store = CXRDataModule(out + "/index.parquet")
    paths = "path", "origin"
    pd.testing.assert_frame_equal(
        store.index.drop(columns=list(paths)), files.index.drop(columns=list(paths))
    )
    assert store.labels == files.labels
    for number in range(len(files.index)):
        np.testing.assert_array_equal(
            store.make_source(store.index)[number], files.make_source(files.index)[number]
        )


def test_the_phantom_with_its_masks(tmp_path):
    make = partial(PhantomDataModule, n_images=30, size=32)
    pack(make(), tmp_path / "store", ONE)
    views = labelled.views(("effusion",), ("lungs", "effusion"))
    files = make(views=views, num_workers=0, batch_size=4)
    store = CXRDataModule(str(tmp_path / "store"), views=views, num_workers=0, batch_size=4)
    assert_same_batches(files, store)


def test_an_index_of_ours_over_a_store_has_the_corrupt_images_of_the_files(tmp_path):
    index = stand_ins.write_index(tmp_path, n=48, corrupt=(3, 4, 41))
    pack(CXRDataModule(index, str(tmp_path)), tmp_path / "store", PackOptions(max_corrupt=0.1))
    frame = pd.read_csv(index).assign(path=lambda f: [p.rpartition("/")[2] for p in f["path"]])
    frame.to_csv(index, index=False)
    files, store = (
        stand_ins.data_module(index, root=str(folder)) for folder in (tmp_path, tmp_path / "store")
    )
    shown = list(store.train_dataloader())
    failed = [(number, text) for batch in shown for number, text in batch.pop("failures")]
    expected = list(files.train_dataloader())
    wanted = [(number, text) for batch in expected for number, text in batch.pop("failures")]
    assert same(shown, expected)
    texts = [
        (number, text.replace(str(tmp_path / "store"), str(tmp_path))) for number, text in failed
    ]
    assert texts == wanted
    assert len(wanted) >= 2


def test_a_data_module_over_a_store_is_pickled(tmp_path):
    index = stand_ins.write_index(tmp_path)
    pack(CXRDataModule(index), tmp_path / "store", ONE)
    source = (data := CXRDataModule(str(tmp_path / "store"))).make_source(data.index)
    first = source[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0], first)


def test_features_of_other_pixels_are_others(tmp_path):
    index = stand_ins.write_index(tmp_path)
    keys = []
    for size in (8, 4):
        pack(CXRDataModule(index), out := tmp_path / f"store {size}", PackOptions(size, workers=1))
        data = CXRDataModule(str(out))
        keys.append([key.replace(str(out), "") for key in data.image_keys(data.index)])
        assert len(set(keys[-1])) == len(data.index)
    assert not set(keys[0]) & set(keys[1])

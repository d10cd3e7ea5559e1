"""What is read: damage is found, and stores elsewhere are stores."""

import shutil
from functools import partial

import numpy as np
import pytest
from pyarrow import fs

from cxrssl.data import CXRDataModule, ImageReadError, load_index
from cxrssl.data import packed as packed_module
from cxrssl.data.packed import PackedImages, PackedStore
from cxrssl.data.packed_folder import store_folder
from cxrssl.errors import InputError
from cxrssl.packing.options import PackOptions
from cxrssl.packing.pack import pack, verify_store
from tests.data.labelled import data_module, views, write_labelled
from tests.data.stand_ins import DrawViews
from tests.packing.object_store import object_store
from tests.packing.test_batches import same

ONE = PackOptions(workers=1)
SHARD = "images-00001.arrow"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Return a folder with the store ``store`` of labelled images with masks, in three shards."""
    folder = tmp_path_factory.mktemp("packed")
    write_labelled(folder)
    pack(CXRDataModule(str(folder / "index.csv")), folder / "store", ONE)
    return folder


@pytest.fixture
def store(packed, tmp_path):
    return shutil.copytree(packed / "store", tmp_path / "store")


def read_all(folder):
    """Return pixels and masks of all images, None for those that cannot be read."""
    store, found = PackedStore(str(folder)), []
    for number in range(len(store)):
        try:
            found.append((store.pixels(number), store.masks(number)))
        except ImageReadError:
            found.append(None)
    return found


def test_every_changed_byte_of_an_image_is_noticed_and_harms_no_other(store):
    whole = read_all(store)
    table = PackedStore(str(store))
    number = 20
    start, length = table._starts[number], table._lengths[number]
    good = (store / SHARD).read_bytes()
    for offset in np.random.default_rng(0).choice(length, 60, replace=False):
        data = bytearray(good)
        data[start + offset] ^= 1 << offset % 8
        (store / SHARD).write_bytes(data)
        found = read_all(store)
        assert found[number] is None
        kept = [n for n in range(len(found)) if n != number]
        assert all(np.array_equal(found[n][i], whole[n][i]) for n in kept for i in (0, 1))


def test_a_shard_cut_short_or_gone_harms_no_other(store):
    (store / SHARD).write_bytes((store / SHARD).read_bytes()[:5000])
    lost = [number for number, found in enumerate(read_all(store)) if found is None]
    assert lost == list(range(lost[0], 32))
    assert 16 < lost[0] < 32
    (store / SHARD).unlink()
    assert [n for n, found in enumerate(read_all(store)) if found is None] == list(range(16, 32))
    with pytest.raises(InputError, match=r"16 of 36 images are damaged, the first: .*016.png"):
        verify_store(str(store), PackOptions(workers=2))


@pytest.mark.parametrize("name", ["index.parquet", "images.parquet"])
def test_damaged_tables_are_refused(store, name):
    good = (store / name).read_bytes()
    for offset in range(0, len(good), 211):
        data = bytearray(good)
        data[offset] ^= 64
        (store / name).write_bytes(data)
        with pytest.raises(InputError, match=f"{name} of .* has a wrong checksum"):
            CXRDataModule(str(store)).make_source(load_index(store))


def test_training_goes_past_a_damaged_image(store):
    data = bytearray((store / SHARD).read_bytes())
    data[2000] ^= 1
    (store / SHARD).write_bytes(data)
    module = CXRDataModule(
        str(store), views=views(("nodule",)), batch_size=4, num_workers=0, seed=5
    )
    batches = list(module.train_dataloader())
    failures = [text for batch in batches for _, text in batch["failures"]]
    assert len(failures) >= 1
    assert "its checksum is wrong, images-00001.arrow is damaged" in failures[0]


def test_many_shards_keep_few_files_open(packed, monkeypatch):
    monkeypatch.setattr(packed_module, "_MOST_OPEN", 2)
    store = PackedStore(str(packed / "store"))
    for number in (0, 17, 34, 1, 18, 35):
        assert store.pixels(number).shape == (24, 24)
        assert len(store._files) <= 2


def test_pixels_are_the_callers_own(packed):
    store = PackedStore(str(packed / "store"))
    store.pixels(3)[:] = 9
    assert store.pixels(3).max() == 255


def test_where_a_store_is(packed, monkeypatch):
    folder = packed / "store"
    assert store_folder(folder) == str(folder)
    assert store_folder(f"{folder}/index.parquet") == str(folder)
    assert store_folder(packed) is None
    assert store_folder("") is None
    assert store_folder(packed / "index.csv") is None
    assert store_folder("s3://bucket/store/index.parquet") == "s3://bucket/store"
    monkeypatch.chdir(folder)
    assert store_folder("") is None
    assert store_folder("index.parquet") == "."
    assert load_index("index.parquet")["path"][0] == "./000.png"


def test_an_index_of_ours_may_lie_in_the_store(store):
    data = CXRDataModule(str(store))
    rows = data.index.iloc[20:].drop(columns=["nodule", "edema"]).assign(mass=1)
    rows.assign(path=rows["path"].str.removeprefix(f"{store}/")).to_parquet(store / "part.parquet")
    part = CXRDataModule(str(store / "part.parquet"))
    assert part.labels == ["mass"]
    assert part.make_source(part.index)[0][0, 0] == 20


def test_images_that_are_not_there_are_named(packed, tmp_path):
    store = PackedStore(str(packed / "store"))
    with pytest.raises(InputError, match=r"1 of 2 images are not in .* example 'b.png'"):
        PackedImages(store, ["000.png", f"{packed}/store/b.png"])


def test_what_is_no_store(tmp_path):
    with pytest.raises(InputError, match="nowhere is no packed store"):
        PackedStore(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="cannot be opened"):
        CXRDataModule("nothing://bucket/store").index  # noqa: B018
    with pytest.raises(InputError, match="is no packed store"):
        CXRDataModule(f"file://{tmp_path}").index  # noqa: B018


def test_a_store_of_another_version(store):
    manifest = store / "packed.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="has format 2 and 1 is read here"):
        CXRDataModule(str(store)).index  # noqa: B018


def test_a_uri_is_the_folder(packed):
    make = partial(CXRDataModule, views=DrawViews(), batch_size=4, num_workers=0, seed=5)
    folder, uri = make(str(packed / "store")), make(f"file://{packed}/store/index.parquet")
    assert same(list(uri.train_dataloader()), list(folder.train_dataloader()))


def test_another_file_system_is_read_through_arrow(packed, monkeypatch):
    inside = fs.SubTreeFileSystem(str(packed), fs.LocalFileSystem())
    monkeypatch.setattr(packed_module, "open_folder", lambda folder: (inside, "store"))
    store = PackedStore("far://store")
    assert store.name(1) == "far://store/001.png"
    assert store.pixels(1)[0, 0] == 1


def test_an_object_store_gets_one_ranged_read_for_an_image(packed):
    if not hasattr(fs, "S3FileSystem"):
        pytest.skip("this pyarrow has no S3")
    with object_store(packed.parent) as (uri, asked):
        far = CXRDataModule(
            uri(f"{packed.name}/store"), views=DrawViews(), batch_size=4, num_workers=2, seed=5
        )
        shown = list(far.train_dataloader())
        assert sorted(set(asked)) == [
            *(f"images-0000{n}.arrow" for n in range(2)),
            *("images.parquet", "index.parquet", "packed.json"),
        ]
        assert sum(name.endswith(".arrow") for name in asked) == sum(
            len(batch["image_number"]) for batch in shown
        )
    near = data_module(packed, views=DrawViews())
    assert same(shown, list(near.train_dataloader()))

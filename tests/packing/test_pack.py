"""What is written: sizes, depths, boxes, and the same bytes however it came about."""

import cv2
import numpy as np
import pandas as pd
import pytest
from pyarrow import ipc

from cxrssl.data import CXRDataModule, read_image
from cxrssl.data.packed import PackedImages, PackedStore
from cxrssl.data.releases.boxes import Box, format_boxes, parse_boxes
from cxrssl.errors import InputError
from cxrssl.packing import pack as packing
from cxrssl.packing.folder import StoreFolder
from cxrssl.packing.options import PackOptions
from cxrssl.packing.pack import pack, verify_store
from cxrssl.packing.shard import reduced_shape
from tests.data.labelled import BROKEN
from tests.data.stand_ins import write_images, write_index
from tests.golden import SHARED

ONE = PackOptions(workers=1)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def images(folder):
    data = CXRDataModule(str(folder))
    return data.make_source(data.index)


@pytest.fixture
def noise(tmp_path):
    """Write images of noise of several sizes into a folder."""
    (folder := tmp_path / "noise").mkdir()
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(40, 30), (30, 61), (33, 33), (12, 50), (7, 5)]):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, shape).astype(np.uint8))
    return folder


@pytest.mark.parametrize("workers", [2, 3])
def test_the_bytes_are_the_same_for_any_number_of_processes(tmp_path, workers):
    index = write_index(tmp_path, corrupt=(7,))
    pack(CXRDataModule(index), tmp_path / "one", ONE)
    packed = pack(CXRDataModule(index), tmp_path / "more", PackOptions(workers=workers))
    assert contents(tmp_path / "one") == contents(tmp_path / "more")
    assert (packed.images, packed.failed, packed.decoded) == (47, 1, 48)
    names = {f"images-0000{n}.arrow" for n in range(3)}
    others = {"packed.json", "index.parquet", "images.parquet", "failures.csv"}
    assert set(contents(tmp_path / "one")) == names | others


@pytest.mark.parametrize("done", [0, 17, 40])
def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, done):
    index = write_index(tmp_path, corrupt=(20,))
    pack(CXRDataModule(index), tmp_path / "whole", ONE)
    write = packing.write_shard
    left = [done]

    def interrupted(*arguments):
        def tick():
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        return write(*arguments[:-1], tick)

    monkeypatch.setattr(packing, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(CXRDataModule(index), tmp_path / "store", ONE)
    with pytest.raises(InputError, match="is not complete: run the same"):
        CXRDataModule(str(tmp_path / "store")).index  # noqa: B018
    monkeypatch.setattr(packing, "write_shard", write)
    packed = pack(CXRDataModule(index), tmp_path / "store", ONE)
    assert packed.decoded == 48 - done // 16 * 16
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert pack(CXRDataModule(index), tmp_path / "store", ONE).decoded == 0
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_shard_that_is_gone_or_cut_is_packed_again(tmp_path):
    index = write_index(tmp_path)
    pack(CXRDataModule(index), store := tmp_path / "store", ONE)
    whole = contents(store)
    (store / "images-00001.arrow").unlink()
    (store / "images-00002.arrow").write_bytes(whole["images-00002.arrow"][:1000])
    assert pack(CXRDataModule(index), store, ONE).decoded == 32
    assert contents(store) == whole


@pytest.mark.parametrize("name", ["images.parquet", "index.parquet"])
def test_a_damaged_table_is_written_again(tmp_path, name):
    index = write_index(tmp_path)
    pack(CXRDataModule(index), store := tmp_path / "store", ONE)
    whole = contents(store)
    (store / name).write_bytes(whole[name][:900] + b"?" + whole[name][901:])
    pack(CXRDataModule(index), store, ONE)
    assert contents(store) == whole


def test_a_run_that_was_killed_between_joining_tables_and_removing_them(tmp_path, monkeypatch):
    index = write_index(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(StoreFolder, "_clear", lambda self: None)
        pack(CXRDataModule(index), store := tmp_path / "store", ONE)
    assert len(list(store.glob("images-*.parquet"))) == 3
    pack(CXRDataModule(index), store, ONE)
    pack(CXRDataModule(index), tmp_path / "whole", ONE)
    assert contents(store) == contents(tmp_path / "whole")


def test_new_labels_need_no_decoding(tmp_path):
    index = write_index(tmp_path)
    pack(CXRDataModule(index), tmp_path / "store", ONE)
    pd.read_csv(index).assign(mass=1).to_csv(index, index=False)
    assert pack(CXRDataModule(index), tmp_path / "store", ONE).decoded == 0
    assert CXRDataModule(str(tmp_path / "store")).labels == ["nodule", "edema", "mass"]


def test_corrupt_images_are_listed_and_left_out_until_they_are_repaired(tmp_path):
    write_images(tmp_path, 40, corrupt=(3, 20, 21))
    data = CXRDataModule(str(tmp_path))
    options = {"max_corrupt": 0.1, "workers": 1}
    assert pack(data, tmp_path / "store", PackOptions(**options)).failed == 3
    failures = pd.read_csv(tmp_path / "store" / "failures.csv")
    assert failures["path"].tolist() == ["003.png", "020.png", "021.png"]
    assert failures["error"].str.contains("header is damaged").all()
    assert [image[0, 0] for image in images(tmp_path / "store")] == [
        n for n in range(40) if n not in (3, 20, 21)
    ]
    cv2.imwrite(str(tmp_path / "020.png"), np.full((8, 8), 20, np.uint8))
    assert pack(data, tmp_path / "store", PackOptions(**options)).decoded == 0
    again = pack(data, tmp_path / "store", PackOptions(**options, retry=True))
    assert (again.images, again.failed, again.decoded) == (38, 2, 32)
    verify_store(str(tmp_path / "store"), ONE)


@pytest.mark.parametrize("workers", [1, 2])
def test_too_many_corrupt_images_stop_it_and_can_be_allowed(tmp_path, workers):
    index = write_index(tmp_path, corrupt=(1, 2))
    for _ in range(2):
        with pytest.raises(InputError, match=r"2 of 48 images.*\n001.png: its PNG(.|\n)*--retry"):
            pack(CXRDataModule(index, str(tmp_path)), tmp_path / "s", PackOptions(workers=workers))
    packed = pack(CXRDataModule(index), tmp_path / "s", PackOptions(max_corrupt=0.05, workers=1))
    assert packed.failed == 2
    assert packed.decoded < 48


def test_nothing_but_corrupt_images(tmp_path):
    (tmp_path / "a.png").write_bytes(BROKEN)
    with pytest.raises(InputError, match="none of 1 images can be read"):
        pack(CXRDataModule(str(tmp_path)), tmp_path / "store", ONE)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [None, 1, 11, 30, 1000])
def test_smaller_images_are_averages_of_areas_and_none_is_enlarged(noise, tmp_path, size, bits):
    pack(CXRDataModule(str(noise)), tmp_path / "store", PackOptions(size, bits, workers=1))
    for number, image in enumerate(images(tmp_path / "store")):
        original = read_image(noise / f"{number}.png").pixels
        scale = min(1, (size or 1000) / min(original.shape))
        expected = tuple(max(1, round(side * scale + 1e-9)) for side in original.shape)
        assert image.shape == expected
        area = cv2.resize(original, expected[::-1], interpolation=cv2.INTER_AREA)
        np.testing.assert_allclose(image, area, atol=0 if bits == 8 or scale == 1 else 1)


def test_the_aspect_is_kept_to_the_nearest_pixel():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, size = rng.integers(1, 4000, 3).tolist()
        rows, columns = reduced_shape((height, width), size)
        assert min(rows, columns) == min(size, height, width)
        scale = min(rows, columns) / min(height, width)
        assert abs(rows - height * scale) <= 0.5
        assert abs(columns - width * scale) <= 0.5


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_sixteen_bits_are_kept_and_shown_as_the_files_are(tmp_path, compression):
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    cv2.imwrite(str(tmp_path / "deep.png"), every)
    cv2.imwrite(str(tmp_path / "flat.png"), every[0].reshape(16, 16).astype(np.uint8))
    np.savez(tmp_path / "rows.npz", images=every[:4].reshape(4, 16, 16).astype(np.uint8))
    paths = ["deep.png", "flat.png", *(f"rows.npz#{row}" for row in range(4))]
    pd.DataFrame({"path": paths}).to_csv(tmp_path / "index.csv", index=False)
    data = CXRDataModule(str(tmp_path / "index.csv"))
    pack(data, tmp_path / "store", PackOptions(None, 16, compression, workers=1))
    pack(CXRDataModule(str(tmp_path / "store")), tmp_path / "2", PackOptions(bits=16, workers=1))
    for store in (tmp_path / "store", tmp_path / "2"):
        for number, path in enumerate(paths):
            source = images(store)
            for depth in ("uint8", "float32"):
                expected = read_image(tmp_path / path, depth=depth).pixels
                np.testing.assert_array_equal(source.read(number, depth), expected)


def test_sixteen_bits_of_dicom_are_shown_as_eight(tmp_path):
    folder = SHARED / "data" / "dicom" / "derived"
    if not folder.is_dir():
        pytest.skip("the DICOM files are not beside this checkout")
    pack(CXRDataModule(str(folder)), tmp_path / "s", PackOptions(bits=16, max_corrupt=1, workers=1))
    store = CXRDataModule(str(tmp_path / "s"))
    source = store.make_source(store.index)
    assert len(source) > 10
    for number in range(len(source)):
        original = folder / source.name(number).removeprefix(str(tmp_path / "s") + "/")
        np.testing.assert_array_equal(source[number], read_image(original).pixels)


def test_boxes_and_masks_shrink_with_their_image(tmp_path):
    image = np.zeros((20, 40), np.uint8)
    image[4:8, 10:30] = 255
    boxes = [Box("Mass", 10, 4, 30, 8, "r1"), Box("Nodule", 0, 0, 40, 20)]
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), image if number < 2 else image[:10, :10])
    texts = [format_boxes(boxes), None, format_boxes(boxes[1:])]
    files = ["0.png", "-1", None]
    frame = pd.DataFrame({"path": [f"{n}.png" for n in range(3)], "boxes": texts})
    frame.assign(**{"mask/mass": files}).to_csv(tmp_path / "index.csv", index=False)
    pack(CXRDataModule(str(tmp_path / "index.csv")), tmp_path / "s", PackOptions(10, workers=1))
    store = CXRDataModule(str(tmp_path / "s"))
    rows = store.index
    assert parse_boxes(rows["boxes"][0]) == [
        Box("Mass", 5, 2, 15, 4, "r1"),
        Box("Nodule", 0, 0, 20, 10),
    ]
    assert pd.isna(rows["boxes"][1])
    assert rows["boxes"][2] == texts[2]
    assert store.has_mask(rows, "mass").tolist() == [True, True, False]
    masks = store.make_masks(rows, ["mass"])
    np.testing.assert_array_equal(masks.read(0, (10, 20))[0], image[1::2, 1::2] == 255)
    assert masks.read(1, (10, 20)).max() == 0
    assert (masks.read(2, (10, 10)) == 255).all()
    with pytest.raises(InputError, match="no masks of 'heart', only of \\['mass'\\]"):
        store.make_masks(rows, ["heart"])


def test_a_mask_of_another_size_is_refused_with_its_image(tmp_path):
    for name, side in (("a.png", 8), ("mask.png", 6)):
        cv2.imwrite(str(tmp_path / name), np.full((side, side), 200, np.uint8))
    frame = pd.DataFrame({"path": ["a.png"], "mask/heart": ["mask.png"]})
    frame.to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(InputError, match=r"a.png: mask of 'heart' .* 6 x 6 pixels"):
        pack(CXRDataModule(str(tmp_path / "index.csv")), tmp_path / "store", ONE)


def test_other_readers_of_arrow_read_it(noise, tmp_path):
    pack(CXRDataModule(str(noise)), tmp_path / "store", ONE)
    with ipc.open_file(tmp_path / "store" / "images-00000.arrow") as file:
        assert file.num_record_batches == 5
        for number in range(5):
            (row,) = file.get_batch(number).to_pylist()
            pixels = np.frombuffer(row["pixels"], np.uint8).reshape(row["height"], row["width"])
            assert row["path"] == f"{number}.png"
            np.testing.assert_array_equal(pixels, read_image(noise / row["path"]).pixels)


def test_a_store_is_packed_again_smaller(noise, tmp_path):
    pack(CXRDataModule(str(noise)), tmp_path / "once", PackOptions(11, workers=1))
    pack(CXRDataModule(str(noise)), tmp_path / "whole", ONE)
    pack(CXRDataModule(str(tmp_path / "whole")), tmp_path / "twice", PackOptions(11, workers=1))
    once, twice = (PackedStore(str(tmp_path / name)) for name in ("once", "twice"))
    for ours, theirs in zip(
        *(PackedImages(s, [f"{n}.png" for n in range(5)]) for s in (once, twice)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 4}, "size is None there and 4 now"),
        ({"bits": 16}, "bits is 8 there and 16 now"),
        ({"compression": "lz4"}, "compression is none there and lz4 now"),
    ],
)
def test_other_settings_are_refused(tmp_path, changes, message):
    index = write_index(tmp_path, n=4, splits=(2, 1))
    pack(CXRDataModule(index), tmp_path / "store", ONE)
    with pytest.raises(InputError, match=message):
        pack(CXRDataModule(index), tmp_path / "store", PackOptions(**changes, workers=1))


def test_other_images_and_other_folders_are_refused(tmp_path):
    index = write_index(tmp_path, n=4, splits=(2, 1))
    pack(CXRDataModule(index), tmp_path / "store", ONE)
    pd.read_csv(index).assign(path=lambda f: f["path"][::-1].to_numpy()).to_csv(index, index=False)
    with pytest.raises(InputError, match="digest of images is"):
        pack(CXRDataModule(index), tmp_path / "store", ONE)
    with pytest.raises(InputError, match="holds something else"):
        pack(CXRDataModule(index), tmp_path, ONE)
    with pytest.raises(InputError, match="cannot be written"):
        pack(CXRDataModule(index), index, ONE)
    with pytest.raises(InputError, match="packed on a disk, got s3://bucket"):
        pack(CXRDataModule(index), "s3://bucket/store", ONE)

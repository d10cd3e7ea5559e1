import numpy as np
import pytest

from cxrssl.data import read_image
from cxrssl.data.releases.files import existing_files
from cxrssl.data.releases.medmnist import ChestMNIST, PneumoniaMNIST
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release

SIZES = {"train": 3, "val": 2, "test": 2}


def write(root, name="chestmnist", width=14, size=28, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in SIZES.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, width), np.uint8)
    np.savez_compressed(root / f"{name}.npz", **(arrays | changes))
    return arrays


@pytest.mark.parametrize(
    ("release", "name", "width"),
    [(ChestMNIST, "chestmnist", 14), (PneumoniaMNIST, "pneumoniamnist", 1)],
)
def test_the_whole_release(tmp_path, release, name, width):
    arrays = write(tmp_path, name, width)
    module = release(str(tmp_path))
    index = check_release(module)
    assert index["split"].tolist() == ["train"] * 3 + ["val"] * 2 + ["test"] * 2
    assert index["path"][4] == f"{tmp_path}/{name}.npz#val_images/1"
    assert index["origin"][4] == f"{name}:val/1"
    assert index["patient_id"].isna().all()
    labels = np.concatenate([arrays[f"{split}_labels"] for split in SIZES])
    np.testing.assert_array_equal(index[module.labels], labels)
    np.testing.assert_array_equal(read_image(index["path"][4]).pixels, arrays["val_images"][1])


def test_other_sizes_have_archives_of_their_own(tmp_path):
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner", "chestmnist_64", size=64)
    index = check_release(ChestMNIST(str(tmp_path), size=64))
    assert read_image(index["path"][0]).pixels.shape == (64, 64)
    with pytest.raises(InputError, match=r"ChestMNIST of size 28: it has no chestmnist.npz"):
        ChestMNIST(str(tmp_path)).make_index()


def test_the_common_vocabulary(tmp_path):
    write(tmp_path)
    assert "Pleural Thickening" in ChestMNIST(str(tmp_path), vocabulary="common").labels


def test_archives_of_other_releases(tmp_path):
    write(tmp_path, width=1)
    with pytest.raises(InputError, match=r"'train_labels' of shape \(3, 1\) should hold 0 and 1"):
        ChestMNIST(str(tmp_path)).make_index()
    write(tmp_path, val_labels=np.full((2, 14), 2, np.uint8))
    with pytest.raises(InputError, match="'val_labels' of shape"):
        ChestMNIST(str(tmp_path)).make_index()
    np.savez(tmp_path / "chestmnist.npz", images=np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(InputError, match="has no array 'train_labels'"):
        ChestMNIST(str(tmp_path)).make_index()
    (tmp_path / "chestmnist.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match=r"cannot be read as an .npz archive"):
        ChestMNIST(str(tmp_path)).make_index()


def test_rows_exist_where_their_archive_does(tmp_path):
    write(tmp_path)
    paths = ["chestmnist.npz#train_images/0", "other.npz#train_images/0", "chestmnist.npz#0"]
    assert existing_files(str(tmp_path), paths).tolist() == [paths[0], None, paths[2]]

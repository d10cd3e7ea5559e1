import cv2
import numpy as np
import pytest

from cxrssl.data.releases import parse_boxes
from cxrssl.data.releases.object_cxr import ObjectCXR
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, grey, write_image, write_text

SIDE = 60
RECTANGLE, ELLIPSE, POLYGON = "0 2 3 10 8", "1 20 10 50 30", "2 5 40 25 40 25 55 15 58"


def write(root, column="image_name", train=(RECTANGLE, ""), dev=(f"{ELLIPSE};{POLYGON};",)):
    for part, cells in (("train", train), ("dev", dev)):
        rows = [f"{number + 1:05d}.jpg,{cell}" for number, cell in enumerate(cells)]
        write_text(root / f"{part}.csv", "\n".join([f"{column},annotation", *rows]) + "\n")
        for number in range(len(cells)):
            pixels = grey(number, size=SIDE)
            write_image(root / part / f"{number + 1:05d}.jpg", pixels)
    return root


def test_the_whole_release(tmp_path):
    module = ObjectCXR(str(write(tmp_path)), validation=0.0)
    index = check_release(module)
    assert index["split"].tolist() == ["train", "train", "test"]
    assert index["foreign object"].tolist() == [1, 0, 1]
    # Both parts have an image 00001.jpg.
    assert index["origin"].tolist() == [
        "objectcxr:train/00001", "objectcxr:train/00002", "objectcxr:dev/00001",
    ]  # fmt: skip
    assert index["path"][2].endswith("dev/00001.jpg")
    assert index["patient_id"].isna().all()


def test_boxes_hold_the_shapes(tmp_path):
    index = ObjectCXR(str(write(tmp_path))).index
    boxes = [parse_boxes(text) for text in index["boxes"].dropna()]
    sides = [[(b.left, b.top, b.right, b.bottom) for b in found] for found in boxes]
    assert sides == [[(2, 3, 10, 8)], [(20, 10, 50, 30), (5, 40, 25, 58)]]
    assert index["boxes"].isna().tolist() == [False, True, False]


def test_masks_are_the_shapes(tmp_path):
    module = ObjectCXR(str(write(tmp_path)))
    masks = module.make_masks(module.index, module.structures)
    rectangle, nothing, shapes = (masks.read(i, (SIDE, SIDE))[0] for i in range(3))
    assert rectangle[3:9, 2:11].all()
    assert rectangle.sum() == 6 * 9
    assert not nothing.any()
    expected = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(expected, (35, 20), (15, 10), 0, 0, 360, 1, -1)
    assert (expected != shapes)[:35].mean() < 0.01
    polygon = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(polygon, [np.array([[5, 40], [25, 40], [25, 55], [15, 58]])], 1)
    np.testing.assert_array_equal(shapes[35:], polygon[35:])


def test_paths_as_names_and_archives_unpacked_twice(tmp_path):
    write(tmp_path, column="image_path")
    for part in ("train", "dev"):
        file = tmp_path / f"{part}.csv"
        file.write_text(file.read_text().replace("0000", f"/path/{part}/0000"))
        (tmp_path / part).rename(tmp_path / "inner")
        (tmp_path / part).mkdir()
        (tmp_path / "inner").rename(tmp_path / part / part)
    assert len(check_release(ObjectCXR(str(tmp_path)))) == 3


def test_one_table_is_enough(tmp_path):
    write(tmp_path)
    (tmp_path / "train.csv").unlink()
    assert check_release(ObjectCXR(str(tmp_path)))["split"].tolist() == ["test"]
    (tmp_path / "dev.csv").unlink()
    with pytest.raises(InputError, match="is no release of Object-CXR"):
        ObjectCXR(str(tmp_path)).make_index()


@pytest.mark.parametrize(
    "cell", ["3 1 2 3 4", "0 1 2 3", "0 1 2 3 4 5 6", "1 a b c d", "2 1 2 3 4", "0 1 2 3 nan"]
)
def test_what_is_no_shape(tmp_path, cell):
    write(tmp_path, train=("", f"{RECTANGLE};{cell}"))
    with pytest.raises(InputError, match=rf"train.csv: the annotation in row 2 has '{cell}'"):
        ObjectCXR(str(tmp_path)).make_index()


def test_tables_of_other_releases(tmp_path):
    write(tmp_path, column="Path")
    with pytest.raises(InputError, match="neither a column 'image_name' nor 'image_path'"):
        ObjectCXR(str(tmp_path)).make_index()

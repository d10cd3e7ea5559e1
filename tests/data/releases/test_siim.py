import numpy as np
import pytest

from cxrssl.data.releases.siim import SIIMPneumothorax
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

UID = "1.2.276.0.7230010.3.1.4.8323329.{}.1517875"
TWO, NONE, LOST, UNLISTED, TEST = (UID.format(number) for number in range(5))
FRAME = (1024, 1024)
ROWS = f"""\
ImageId, EncodedPixels
{TWO}, 5 2 1020 3
{NONE}, -1
{TWO}, 6 2 3000 1
{LOST},-1
"""


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "train-rle.csv", ROWS)
    for number, (name, folder) in enumerate(
        {TWO: "train", NONE: "train", UNLISTED: "train", TEST: "test"}.items()
    ):
        path = tmp_path / f"dicom-images-{folder}/1.2.3.{number}/1.2.4.{number}/{name}.dcm"
        write_dicom(path, number, jpeg=number != 1, ViewPosition="PA", PatientAge="51",
                    PatientSex="M", PatientID=f"uuid-{number}")  # fmt: skip
    return tmp_path


@pytest.fixture
def module(root):
    module = SIIMPneumothorax(str(root))
    with pytest.warns(UserWarning, match=f"1 of 5 images are not there.*{LOST}"):
        check_release(module)
    return module


def test_the_whole_release(module):
    index = module.index
    assert index["origin"].tolist() == [f"siim:{name}" for name in (TWO, NONE, TEST, UNLISTED)]
    np.testing.assert_array_equal(index["Pneumothorax"], np.float32([1, 0, np.nan, np.nan]))
    assert index["study_id"].tolist() == ["1.2.3.0", "1.2.3.1", "1.2.3.3", "1.2.3.2"]
    assert index["patient_id"].isna().all()
    assert index["view_position"].isna().all()
    assert module.structures == ["pneumothorax"]
    assert module.has_mask(index, "pneumothorax").tolist() == [True, True, False, False]


def test_rows_of_one_image_are_united(module):
    masks = module.make_masks(module.index, ["pneumothorax"])
    # Starts count on within a row, and from the beginning in the next one; down the columns.
    flat = np.zeros(FRAME[0] * FRAME[1], np.uint8)
    for start, end in ((5, 7), (1027, 1030), (6, 8), (3008, 3009)):
        flat[start:end] = 1
    np.testing.assert_array_equal(masks.read(0, FRAME)[0], flat.reshape(FRAME).T)
    assert not masks.read(1, FRAME).any()
    assert (masks.read(2, FRAME) == 255).all()


def test_headers_are_read_where_asked_for(root):
    write_text(root / "train-rle.csv", ROWS.rpartition(f"{LOST}")[0])
    index = check_release(SIIMPneumothorax(str(root), read_headers=True))
    assert index["age"].eq(51).all()
    assert index["sex"].eq("M").all()
    assert index["view_position"].eq("PA").all()


def test_the_table_of_the_second_stage_comes_first(root):
    write_text(root / "stage_2_train.csv", f"ImageId,EncodedPixels\n{NONE},1 1\n")
    index = check_release(SIIMPneumothorax(str(root)))
    assert index["Pneumothorax"].eq(1).sum() == 1
    assert index["Pneumothorax"].isna().sum() == 3


def test_a_row_that_says_nothing(root):
    write_text(root / "train-rle.csv", f"ImageId,EncodedPixels\n{NONE},\n{TWO},-1\n")
    index = SIIMPneumothorax(str(root)).index
    assert index["Pneumothorax"].isna().tolist() == [True, False, True, True]
    assert index["mask/pneumothorax"].isna().tolist() == [True, False, True, True]


def test_resized_copies_and_their_masks(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("copies")
    for number, name in enumerate((TWO, NONE, LOST)):
        write_image(images / f"images/{name}.jpg", number)
        write_image(images / f"annotations_01/{name}.png", 10 + number)
    index = check_release(SIIMPneumothorax(str(root), images=str(images)))
    assert len(index) == 3
    assert index["path"].str.endswith(".jpg").all()
    assert index["study_id"].isna().all()


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no stage_2_train\.csv or train-rle\.csv"):
        SIIMPneumothorax(str(root / "dicom-images-test")).make_index()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" EncodedPixels", "Pixels", "has no column 'EncodedPixels'"),
        ("6 2 3000 1", "6 2 x 1", "'EncodedPixels' is '6 2 x 1' in row 3"),
        (",-1", ",-2", "'EncodedPixels' is '-2' in row 4"),
    ],
)
def test_a_value_that_makes_no_sense(root, old, new, message):
    write_text(root / "train-rle.csv", ROWS.replace(old, new))
    with pytest.raises(InputError, match=rf"train-rle\.csv.*{message}"):
        SIIMPneumothorax(str(root)).make_index()

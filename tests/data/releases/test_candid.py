import numpy as np
import pytest

from cxrssl.data.releases.candid import CandidPTX
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

UID = "1.2.826.0.1.3680043.8.498.{}"
FIRST, SECOND, THIRD, SHARED = (UID.format(number) for number in (11, 1, 22, 44))
FRAME = (1024, 1024)
REPORTS = f"""\
SOPInstanceUID,EncodedPixels,Report,filename,Age
{FIRST},5 2 3 1,"Small, apical pneumothorax.",P0001_a.dcm,1
{SECOND},,None,P0001_b.dcm,1
{THIRD},-1,Clear lungs.,P0002_a.dcm,1
{FIRST},2000 4,Repeated.,P0001_a.dcm,1
{SHARED},-1,,P0003_a.dcm,1
{SHARED},-1,,P0004_a.dcm,1
"""


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "Pneumothorax_reports.csv", "\ufeff" + REPORTS)
    write_text(
        tmp_path / "chest_tube.csv",
        f"anon_SOPUID,Unnamed: whatever,mask_rle\n{THIRD},a,-1\n{THIRD},b,7 2\n{SECOND},c,-1\n",
    )
    write_text(
        tmp_path / "acute_rib_fracture.csv", f"anon_SOPUID,x,mask_rle\n{FIRST},a,1 1\n{UID},b,1 1\n"
    )
    for number, name in enumerate((FIRST, SECOND, THIRD, SHARED)):
        write_dicom(tmp_path / "dataset" / name, number)
    return tmp_path


def test_the_whole_release(root):
    index = check_release(CandidPTX(str(root)))
    assert index["origin"].tolist() == [f"candid:{name}" for name in (FIRST, SECOND, THIRD)]
    assert index["patient_id"].tolist() == ["P0001", "P0001", "P0002"]
    assert index["path"].tolist()[0].endswith(f"dataset/{FIRST}")
    assert index["text"].fillna("").tolist() == ["Small, apical pneumothorax.", "", "Clear lungs."]


def test_a_blank_is_neither_positive_nor_negative(root):
    module = CandidPTX(str(root))
    np.testing.assert_array_equal(module.index["Pneumothorax"], np.float32([1, np.nan, 0]))
    assert module.has_mask(module.index, "pneumothorax").tolist() == [True, False, True]


def test_tables_of_positive_images(root):
    module = CandidPTX(str(root))
    index = module.index
    assert index["Chest tube"].tolist() == [0, 1, 1]
    assert index["Rib fracture"].tolist() == [1, 0, 0]
    # Of the second image, positive without a region, no mask is known.
    assert module.has_mask(index, "chest_tube").tolist() == [True, False, True]
    assert index["mask/chest_tube"].fillna("").tolist() == ["-1", "", "7 2"]
    assert index["mask/rib_fracture"].tolist() == ["1 1", "-1", "-1"]


def test_rows_of_one_image_are_united(root):
    module = CandidPTX(str(root))
    masks = module.make_masks(module.index, ["pneumothorax"])
    flat = np.zeros(FRAME[0] * FRAME[1], np.uint8)
    for start, end in ((5, 7), (10, 11), (2000, 2004)):
        flat[start:end] = 1
    np.testing.assert_array_equal(masks.read(0, FRAME)[0], flat.reshape(FRAME).T)


def test_a_release_in_part(root):
    (root / "chest_tube.csv").unlink()
    (root / "acute_rib_fracture.csv").rename(root / "Rib_fracture_mask_rle.csv")
    (root / "dataset" / SECOND).unlink()
    module = CandidPTX(str(root))
    with pytest.warns(UserWarning, match="1 of 3 images are not there"):
        index = check_release(module)
    assert index["Chest tube"].isna().all()
    assert not module.has_mask(index, "chest_tube").any()
    assert index["Rib fracture"].tolist() == [1, 0]


@pytest.mark.parametrize("folder", ["dataset1/dataset", "chest_radiographs", "images"])
def test_other_folders_of_images(root, folder):
    (root / folder).parent.mkdir(exist_ok=True)
    (root / "dataset").rename(root / folder)
    assert len(check_release(CandidPTX(str(root)))) == 3


def test_copies_of_another_format(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("copies")
    for number, name in enumerate((FIRST, SECOND, THIRD)):
        write_image(images / f"{name}.jpg", number)
    index = check_release(CandidPTX(str(root), images=str(images)))
    assert index["path"].str.endswith(".jpg").all()


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no Pneumothorax_reports\.csv"):
        CandidPTX(str(root / "dataset")).make_index()
    write_text(root / "chest_tube.csv", f"anon_SOPUID,mask_rle\n{THIRD},7 2\n")
    with pytest.raises(InputError, match=r"chest_tube\.csv cannot be read as a table"):
        CandidPTX(str(root)).make_index()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Pneumothorax_reports.csv", "filename", "file", "has no column 'filename'"),
        ("Pneumothorax_reports.csv", "2000 4", "yes", "'EncodedPixels' is 'yes' in row 4"),
        ("chest_tube.csv", "7 2", "tube", "'mask' is 'tube' in row 2"),
    ],
)
def test_a_value_that_makes_no_sense(root, file, old, new, message):
    path = root / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=f"{file}.*{message}"):
        CandidPTX(str(root)).make_index()

import numpy as np
import pytest

from cxrssl.data.releases.brax import BRAX
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image, write_text

HEADER = (
    ",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,"
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Lesion,Lung Opacity,Edema,"
    "Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,"
    "Support Devices,ViewPosition,Rows,Columns,Manufacturer"
)
FOLDERS = ["id_a1/Study_1.2/Series_3", "id_a1/Study_1.2/Series_4", "id_b2/Study_5/Series_6",
           "id_c3/Study_7/Series_8"]  # fmt: skip
PEOPLE = ["id_a1,M,85 or more,11", "id_a1,M,85 or more,11", "id_b2,F,20,11", "id_c3,O,0,12"]
LABELS = ["1,,,,,,,,,,,,,1", "1.0,,,,,,,,,,,,,1.0", ",,-1,1,0,,,,,,,,,", ",0,,,1,,,,,,,,,"]
VIEWS = ["PA", "RL", "LT-DECUB", ""]


def table(suffix=".dcm"):
    rows = zip(FOLDERS, PEOPLE, LABELS, VIEWS, strict=True)
    lines = [
        f"{n},Anonymized_DICOMs/{folder}/image-{n}-9{suffix},images/{folder}/image-{n}-9.png,"
        f"{person},20080101,{labels},{view},1000,800,1"
        for n, (folder, person, labels, view) in enumerate(rows)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def write_brax(root):
    """Write the miniature release into a folder, and return it."""
    write_text(root / "master_spreadsheet_update.csv", table())
    for number, folder in enumerate(FOLDERS):
        write_image(root / "images" / folder / f"image-{number}-9.png", number)
    return root


@pytest.fixture
def root(tmp_path):
    return write_brax(tmp_path)


def test_the_whole_release(root):
    index = check_release(BRAX(str(root)))
    assert index["patient_id"].tolist() == ["id_a1", "id_a1", "id_b2", "id_c3"]
    assert index["study_id"].tolist() == ["id_a1/11", "id_a1/11", "id_b2/11", "id_c3/12"]
    assert index["sex"].tolist() == ["M", "M", "F", "O"]
    assert index["age"].tolist() == [85, 85, 20, 0]
    assert index["view_position"].fillna("").tolist() == ["PA", "LATERAL", "OTHER", ""]
    assert index["origin"][2] == "brax:id_b2/Study_5/Series_6/image-2-9.png"
    names = ["No Finding", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Support Devices"]
    np.testing.assert_array_equal(
        index[names],
        [[1, np.nan, np.nan, np.nan, 1]] * 2
        + [[np.nan, -1, 1, 0, np.nan], [np.nan, np.nan, np.nan, 1, np.nan]],
    )


def test_dicom_files_with_and_without_a_suffix_keep_their_names(root):
    for suffix in (".dcm", ""):
        write_text(root / "master_spreadsheet_update.csv", table(suffix))
        for number, folder in enumerate(FOLDERS):
            # The content decides: a PNG will do for the folder's sake.
            path = root / "Anonymized_DICOMs" / folder / f"image-{number}-9.png"
            write_image(path, number).rename(path.with_suffix(suffix))
        index = check_release(BRAX(str(root), files="dicom", incomplete="refuse"))
        assert index["path"].str.endswith(f"-9{suffix}").all()
        assert index["origin"][2] == "brax:id_b2/Study_5/Series_6/image-2-9.png"


def test_the_table_of_the_first_release_is_read_where_there_is_no_newer_one(root):
    (root / "master_spreadsheet_update.csv").rename(root / "master_spreadsheet.csv")
    assert len(check_release(BRAX(str(root)))) == 4


def test_the_newer_of_two_tables_is_read(root):
    write_text(root / "master_spreadsheet.csv", "old\n")
    assert len(BRAX(str(root)).index) == 4


def test_patients_are_split_and_missing_images_left_out(root):
    (root / "images" / FOLDERS[2] / "image-2-9.png").unlink()
    with pytest.warns(UserWarning, match="1 of 4 images are not there"):
        index = BRAX(str(root), split=(0.4, 0.3, 0.3)).index
    assert len(index) == 3
    assert index.groupby("patient_id")["split"].nunique().eq(1).all()


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match="files must be one of png, dicom, got 'jpg'"):
        BRAX(str(root), files="jpg")
    with pytest.raises(InputError, match=r"it has no master_spreadsheet_update.csv"):
        BRAX(str(root / "images")).make_index()
    file = root / "master_spreadsheet_update.csv"
    text = file.read_text()
    file.write_text(text.replace(",,-1,1,0", ",,-2,1,0"))
    with pytest.raises(InputError, match=r"update.csv: 'Cardiomegaly' is '-2' in row 3"):
        BRAX(str(root)).make_index()
    file.write_text(text.replace("Lung Lesion,", ""))
    with pytest.raises(InputError, match="has no column 'Lung Lesion'"):
        BRAX(str(root)).make_index()

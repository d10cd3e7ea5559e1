import json

import numpy as np
import pytest

from cxrssl.data.releases.chexpert_files import CHEXPERT_FINDINGS
from cxrssl.data.releases.chexpert_plus import CheXpertPlus
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

HEADER = (
    "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,"
    "report,section_findings,section_impression,age,sex,race,recent_bmi,deceased,split"
)
ROWS = [
    "train/patient00001/study1/view1_frontal.jpg,train/patient00001/study1/view1_frontal.dcm,"
    'Frontal,AP,patient00001,1,"FINDINGS:\nClear.","Clear.\n No effusion.",Normal.,68.0,Female,'
    "White,24.5,No,train",
    "train/patient00002/study1/view1_frontal.jpg,,Frontal,RL,patient00002,2,None,,,87,Male,,,,train",
    "train/patient00002/study1/view2_lateral.jpg,,Lateral,,patient00002,2,None,,,87,Male,,,,train",
    "valid/patient64541/study1/view1_frontal.jpg,,Frontal,PA,patient64541,1,Clear,Clear,,50,"
    "Unknown,,,,valid",
]
NAMES = [row.partition(".jpg")[0] for row in ROWS]
LABELS = [
    {"path_to_image": NAMES[0] + ".jpg"} | dict.fromkeys(CHEXPERT_FINDINGS) | {"Edema": -1},
    {"path_to_image": NAMES[1] + ".jpg"} | dict.fromkeys(CHEXPERT_FINDINGS) | {"Fracture": 0.0},
    {"path_to_image": NAMES[3] + ".jpg"} | dict.fromkeys(CHEXPERT_FINDINGS) | {"No Finding": 1},
]


def write_labels(root, rows, part="report"):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    return write_text(root / f"chexbert_labels/{part}_fixed.json", lines)


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "df_chexpert_plus_240401.csv", "\n".join([HEADER, *ROWS]) + "\n")
    folders = ["PNG/chunk_0", "PNG/chunk_1", "PNG/chunk_1", "PNG/chunk_0"]
    for number, (folder, name) in enumerate(zip(folders, NAMES, strict=True)):
        write_image(tmp_path / folder / f"{name}.png", number)
    write_text(tmp_path / "PNG/chunk_0/.azDownload-1-view1_frontal.png", "half")
    write_labels(tmp_path, LABELS)
    return tmp_path


def test_the_whole_release(root):
    index = check_release(CheXpertPlus(str(root)))
    assert index["path"].str.endswith(".png").all()
    assert index["split"].tolist() == ["train"] * 3 + ["val"]
    assert index["view_position"].tolist() == ["AP", "OTHER", "LATERAL", "PA"]
    assert index["text"][0] == "Clear. No effusion."
    assert index["text"].isna().tolist() == [False, True, True, False]
    np.testing.assert_array_equal(index["bmi"], np.float32([24.5, np.nan, np.nan, np.nan]))
    np.testing.assert_array_equal(index["age"], [68, 87, 87, 50])
    assert index["sex"].fillna("?").tolist() == ["F", "M", "M", "?"]


def test_images_have_the_names_they_have_in_chexpert(root):
    index = CheXpertPlus(str(root)).index
    assert index["origin"][0] == "chexpert:patient00001/study1/view1_frontal"
    assert index["origin_patient"][0] == "chexpert:patient00001"
    assert index["study_id"][2] == "patient00002/study1"


def test_labels_are_those_of_the_part_that_is_asked_for(root):
    index = CheXpertPlus(str(root)).index
    assert index["Edema"][0] == -1
    assert index["Fracture"][1] == 0
    assert index["No Finding"][3] == 1
    assert index.loc[2, list(CHEXPERT_FINDINGS)].isna().all()
    assert CheXpertPlus(str(root), section="findings").index["Edema"].isna().all()
    write_labels(root, [LABELS[0] | {"Edema": 1}], "impression")
    assert CheXpertPlus(str(root), section="impression").index["Edema"][0] == 1


def test_dicom_files_without_a_high_bit(root):
    for number, name in enumerate(NAMES):
        path = root / "DICOM/Uncompressed" / f"{name}.dcm"
        write_dicom(path, number, **({} if number else {"HighBit": None}))
    index = check_release(CheXpertPlus(str(root), format="dicom"))
    assert index["path"].str.endswith(".dcm").all()
    assert len(index) == 4


def test_a_folder_of_images_elsewhere_and_incomplete(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("resized")
    for name in NAMES[:3]:
        write_image(images / f"{name}.jpg")
    with pytest.warns(UserWarning, match="1 of 4 images are not there.*patient64541"):
        assert len(CheXpertPlus(str(root), images=str(images)).index) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",valid\n", ",later\n", r"240401.csv: the split is 'later' in row 4"),
        ("section_findings", "findings", "has no column 'section_findings'"),
        ("train/patient00001/study1/view1_frontal.jpg", "one.jpg", "'one.jpg' in row 1 is no path"),
    ],
)
def test_tables_that_make_no_sense(root, old, new, message):
    file = root / "df_chexpert_plus_240401.csv"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError, match=message):
        CheXpertPlus(str(root)).make_index()


def test_labels_that_make_no_sense(root):
    write_labels(root, [LABELS[0], LABELS[1] | {"Edema": 3}])
    with pytest.raises(InputError, match=r"report_fixed.json: 'Edema' is '3' in row 2"):
        CheXpertPlus(str(root)).make_index()
    file = write_labels(root, [LABELS[0], {"path_to_image": "x"}])
    with pytest.raises(InputError, match=r"line 2 is no JSON object.*KeyError"):
        CheXpertPlus(str(root)).make_index()
    file.write_text("[1]\n")
    with pytest.raises(InputError, match="line 1 is no JSON object"):
        CheXpertPlus(str(root)).make_index()


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no df_chexpert_plus_\*.csv"):
        CheXpertPlus(str(root / "PNG")).make_index()

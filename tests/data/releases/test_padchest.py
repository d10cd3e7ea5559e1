import csv
import gzip

import numpy as np
import pytest

from cxrssl.data.releases.padchest import PADCHEST_BAD_FILES, PadChest
from cxrssl.data.releases.padchest_labels import (
    PADCHEST_DIAGNOSES,
    PADCHEST_FINDINGS,
    PADCHEST_LABELS,
)
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, grey, write_image

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,"
    "ViewPosition_DICOM,Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,"
    "PhotometricInterpretation_DICOM,PixelRepresentation_DICOM,PixelAspectRatio_DICOM,"
    "SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,WindowWidth_DICOM,Rows_DICOM,"
    "Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)
COLUMNS = HEADER.split(",")
STUDY = "149680199245552488656945127265377117691"
BAD = "216840111366964012819207061112010307142602253_04-014-084.png"


def row(name, folder, labels, **cells):
    """Return a row of the table; what a test does not say is what most rows have."""
    known = {
        "ImageID": name,
        "ImageDir": folder,
        "StudyDate_DICOM": "20140915",
        "StudyID": name.rpartition("_")[0],
        "PatientID": "839860488694292331637988235681460987",
        "PatientBirth": "1930.0",
        "PatientSex_DICOM": "F",
        "Projection": "PA",
        "MethodProjection": "Manual review of DICOM fields",
        "Pediatric": "No",
        "PixelAspectRatio_DICOM": "['1', '1']",
        "Report": "sin hallazg patolog .",
        "MethodLabel": "Physician",
        "Labels": labels,
        "LabelsLocalizationsBySentence": "[['normal'], ['pneumonia', 'loc basal']]",
    }
    return [(known | cells).get(column, "") for column in COLUMNS]


ROWS = [
    row(f"{STUDY}_3r162a.png", "0", "['normal']"),
    row(f"{STUDY}_b7k2x9.png", "0", "['normal']", Projection="L", MethodLabel="RNN_model"),
    row("216840111366964012989926673512011074122523404_00-163-058.png", "36",
        "['interstitial pattern', 'unchanged', ' pneumonia', '']", PatientID="2",
        PixelAspectRatio_DICOM="None", MethodLabel="RNN_model"),
    row("3_c1.png", "36", "['pseudonodule', 'breast mass', 'NSG Tube']", PatientID="3",
        PatientBirth="2007.0", Pediatric="PED", PatientSex_DICOM="M", Projection="AP_horizontal"),
    row("4_d1.png", "54", "", PatientID="4", PatientBirth="", Report="", Projection="COSTAL"),
    row("5_e1.png", "54", "['exclude', 'nodule']", PatientID="5", Projection="EXCLUDE"),
    row("6_f1.png", "54", "['suboptimal study', 'multiple nodules']", PatientID="6", Report="None",
        PatientBirth="1830.0"),
    row("7_g1.png", "54", "['unchanged']", PatientID="7", Projection="AP"),
    row(BAD, "4", "['mass']", PatientID="8"),
]  # fmt: skip


def write_table(path, rows, opener=open):
    with opener(path, "wt", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def write_padchest(root):
    """Write the miniature release into a folder, and return it."""
    write_table(root / TABLE, ROWS)
    for number, cells in enumerate(ROWS[:-1]):
        pixels = grey(number, bits=16) >> 4
        pixels[0, 0] = 4095
        write_image(root / "images" / cells[2] / cells[1], pixels)
    return root


@pytest.fixture
def root(tmp_path):
    return write_padchest(tmp_path)


def test_the_whole_release(root):
    index = check_release(PadChest(str(root), incomplete="refuse"))
    assert len(index) == 8
    assert index["patient_id"][0] == "839860488694292331637988235681460987"
    assert index["study_id"][0] == STUDY
    assert index["origin"][0] == f"padchest:{STUDY}_3r162a.png"
    assert index["sex"].tolist() == ["F"] * 3 + ["M"] + ["F"] * 4
    assert index["text"].isna().tolist() == [False] * 4 + [True, False, True, False]
    views = ["PA", "LATERAL", "PA", "AP_SUPINE", "OTHER", "OTHER", "PA", "AP"]
    assert index["view_position"].tolist() == views


def test_ages_are_the_years_between_birth_and_study(root):
    ages = [84, 84, 84, 7, np.nan, 84, np.nan, 84]
    np.testing.assert_array_equal(PadChest(str(root)).index["age"], ages)


def test_labels_are_compared_whole_and_in_the_spelling_of_the_tree(root):
    module = PadChest(str(root))
    labels = module.index[module.labels]
    positive = [[name for name in labels if labels.loc[row, name] == 1] for row in labels.index]
    assert positive == [
        ["normal"], ["normal"], ["interstitial pattern", "pneumonia"],
        ["pseudonodule", "breast mass", "NSG tube"], [], [], ["multiple nodules"], [],
    ]  # fmt: skip
    # Without labels, excluded, and with a remark only: nothing is known.
    assert labels.isna().all(axis=1).tolist() == [False] * 4 + [True, True, False, True]
    assert labels.isna().any(axis=1).equals(labels.isna().all(axis=1))


def test_the_vocabulary_is_that_of_the_tree_without_its_remarks():
    assert (len(PADCHEST_FINDINGS), len(PADCHEST_DIAGNOSES)) == (168, 19)
    assert len({name.lower() for name in PADCHEST_LABELS}) == 188
    assert all(name == name.strip() for name in PADCHEST_LABELS)


def test_labels_of_physicians_only(root):
    module = PadChest(str(root), physicians_only=True)
    unknown = module.index[module.labels].isna().all(axis=1).tolist()
    assert unknown == [False, True, True, False, True, True, False, True]


def test_suboptimal_images_are_dropped_on_request(root):
    index = PadChest(str(root), drop_suboptimal=True).index
    assert index["patient_id"].tolist()[-3:] == ["3", "4", "7"]


def test_images_known_to_be_bad_are_asked_for_on_request(root):
    assert len(PADCHEST_BAD_FILES) == 21
    assert BAD in PADCHEST_BAD_FILES
    with pytest.warns(UserWarning, match=f"1 of 9 images are not there, for example {BAD}"):
        assert len(PadChest(str(root), skip_bad=False).index) == 8


@pytest.mark.parametrize("folder", ["", "{}", "elsewhere/{}"])
def test_folders_of_the_archives_or_one(root, folder):
    for cells in ROWS[:-1]:
        path = root / folder.format(cells[2]) / cells[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / cells[2] / cells[1]).rename(path)
    assert len(check_release(PadChest(str(root), incomplete="refuse"))) == 8


def test_a_compressed_table_with_a_repeated_row(root):
    (root / TABLE).unlink()
    write_table(root / f"{TABLE}.gz", [*ROWS, ROWS[0]], gzip.open)
    assert len(check_release(PadChest(str(root)))) == 8


def test_labels_outside_the_vocabulary_are_counted_in_one_warning(root):
    odd = [row(f"9_{n}.png", "0", "['nodule', 'heart on fire']", PatientID="9") for n in "ab"]
    write_table(root / TABLE, [*ROWS, *odd, row("9_c.png", "0", "['loc basal']")])
    for name in "abc":
        write_image(root / "0" / f"9_{name}.png")
    with pytest.warns(UserWarning, match=r"2 labels .* 'heart on fire' \(2 rows\), 'loc basal'"):
        index = PadChest(str(root)).index
    assert index["nodule"].tolist()[-3:] == [1, 1, 0]


def test_findings_of_the_common_vocabulary(root):
    index = check_release(PadChest(str(root), vocabulary="common"))
    assert index.loc[6, "Nodule or Mass"] == 1
    assert index.loc[3, "Support Devices"] == 1
    assert index.loc[3, "Nodule or Mass"] == 0


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=f"it has no {TABLE}"):
        PadChest(str(root / "images")).make_index()
    write_table(root / TABLE, [*ROWS, row("9_a.png", "0", "pneumonia")])
    with pytest.raises(InputError, match=r"row 10 are no list: .* not 'pneumonia'"):
        PadChest(str(root)).make_index()
    text = (root / TABLE).read_text()
    (root / TABLE).write_text(text.replace("ImageID", "Image"))
    with pytest.raises(InputError, match="has no column 'ImageID'"):
        PadChest(str(root)).make_index()

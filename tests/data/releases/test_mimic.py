import gzip
import shutil

import numpy as np
import pytest

from cxrssl.data.releases.mimic import MIMICCXR, MIMICCXRJPG
from cxrssl.data.releases.mimic_reports import findings_of_report
from cxrssl.data.releases.mimic_tables import MIMIC_SKIPPED
from cxrssl.errors import InputError
from tests.data.releases.mimic_miniature import (
    FRONTAL,
    ROWS,
    SKIPPED,
    image_path,
    label_rows,
    write_gzip,
    write_mimic,
    write_tables,
)
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

REPORT = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough

 FINDINGS:

 The lungs are clear.
 Heart: normal in size.

 IMPRESSION:

 No acute process.
"""


@pytest.fixture
def root(tmp_path):
    return write_mimic(tmp_path)


def test_the_whole_release(root):
    module = MIMICCXRJPG(str(root))
    index = check_release(module)
    assert index["patient_id"].tolist() == [row[1] for row in ROWS]
    assert index["study_id"].tolist() == [row[2] for row in ROWS]
    assert index["split"].tolist() == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert index["origin"][0] == f"mimic:{FRONTAL}"
    assert index["origin_patient"][0] == "mimic:10000032"
    assert "text" not in index
    assert index[["sex", "age"]].isna().all(axis=None)


def test_blank_views_are_those_of_the_view_code(root):
    views = MIMICCXRJPG(str(root)).index["view_position"]
    assert views[:5].tolist() == ["AP", "LATERAL", "PA", "OTHER", "PA"]
    assert views.isna().tolist() == [False] * 5 + [True]


def test_labels_of_a_study_are_those_of_its_images(root):
    index = MIMICCXRJPG(str(root)).index
    names = ["Atelectasis", "Cardiomegaly", "Edema", "Fracture"]
    for row in (0, 1, 3, 4, 5):
        np.testing.assert_array_equal(index.loc[row, names].tolist(), [1, 0, -1, np.nan])
    assert index.loc[2, names].isna().all()  # a study without a row
    assert MIMICCXRJPG(str(root), labeller="negbio").index["Fracture"][0] == 1


def test_labels_of_radiologists_in_the_test_set(root):
    lines = [line.partition(",")[2] for line in label_rows("Lung Opacity")]
    lines[0] = lines[0].replace("Lung Opacity", "Airspace Opacity")
    write_text(root / "mimic-cxr-2.1.0-test-set-labeled.csv", "\n".join((lines[0], lines[3])))
    index = MIMICCXRJPG(str(root), test_labels="radiologists").index
    assert index["Lung Opacity"][5] == 1
    assert index["Lung Opacity"][:5].isna().all()
    assert index["Atelectasis"].tolist()[:2] == [1, 1]
    other = lines[3].replace("51029426", "59999999")
    write_text(root / "mimic-cxr-2.1.0-test-set-labeled.csv", "\n".join((lines[0], other)))
    index = MIMICCXRJPG(str(root), test_labels="radiologists").index
    assert index.loc[5, index.columns.intersection(["Atelectasis"])].isna().all()
    assert index["Atelectasis"][0] == 1


def test_listed_images_are_skipped_on_demand(root):
    assert len(MIMIC_SKIPPED) == 23
    assert all(len(name) == 44 for name in MIMIC_SKIPPED)
    index = MIMICCXRJPG(str(root), skip_listed=True).index
    assert len(index) == 5
    assert f"mimic:{SKIPPED}" not in set(index["origin"])


def test_dicom_files_with_the_tables_of_the_other_release(root, tmp_path_factory):
    release = tmp_path_factory.mktemp("dicom")
    lines = [f"{row[1]},{row[2]},{row[0]},{image_path(row, '.dcm')}" for row in ROWS]
    write_gzip(release / "cxr-record-list.csv.gz", ["subject_id,study_id,dicom_id,path", *lines])
    for number, row in enumerate(ROWS):
        write_dicom(release / image_path(row, ".dcm"), number)
    with pytest.warns(UserWarning, match="split.csv.gz: patients are divided"):
        alone = check_release(MIMICCXR(str(release)))
    assert alone["path"].str.endswith(".dcm").all()
    assert alone[list(MIMICCXR.findings)].isna().all(axis=None)
    assert alone["view_position"].isna().all()
    joined = check_release(MIMICCXR(str(release), tables=str(root)))
    other = MIMICCXRJPG(str(root)).index
    same = ["patient_id", "study_id", "view_position", "split", "origin", *MIMICCXR.findings]
    assert joined[same].equals(other[same])


@pytest.mark.parametrize("folder", ["files_512", ""])
def test_resized_copies(root, tmp_path_factory, folder):
    images = tmp_path_factory.mktemp("resized")
    shutil.copytree(root / "files", images / folder, dirs_exist_ok=True)
    assert len(check_release(MIMICCXRJPG(str(root), images=str(images)))) == 6


def test_images_in_one_folder(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("flat")
    for number, row in enumerate(ROWS):
        write_image(images / f"{row[0]}.png", number)
    assert len(check_release(MIMICCXRJPG(str(root), images=str(images)))) == 6


def test_reports_in_a_folder_or_a_table(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    write_text(folder / "files/p10/p10000032/s50414267.txt", REPORT)
    write_text(folder / "files/p10/p10000764/s57375967.txt", "WET READ: nothing\n")
    expected = ["The lungs are clear. Heart: normal in size."] * 2
    text = MIMICCXRJPG(str(root), reports=str(folder)).index["text"]
    assert text[:2].tolist() == expected
    assert text[2:].isna().all()
    table = write_text(
        folder / "mimic_cxr_sectioned.csv",
        "study,impression,findings,last_paragraph,comparison\n"
        's50414267,No.,"The lungs are clear.\n Heart: normal in size.",,\ns57375967,No.,,,\n',
    )
    text = MIMICCXRJPG(str(root), reports=str(table)).index["text"]
    assert text[:2].tolist() == expected
    assert text[2:].isna().all()
    with pytest.raises(InputError, match="has no report of these studies"):
        MIMICCXRJPG(str(root), reports=str(root)).make_index()


@pytest.mark.parametrize(
    ("report", "findings"),
    [
        (REPORT, "The lungs are clear. Heart: normal in size."),
        ("FINDINGS AND IMPRESSION: Clear.", "Clear."),
        ("FINDINGS:\n\nIMPRESSION: Clear.", None),
        ("Clear.", None),
    ],
)
def test_section_of_findings(report, findings):
    assert findings_of_report(report) == findings


def test_sex_and_age_from_mimic_iv(root):
    table = root / "patients.csv"
    header = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod\n"
    write_text(table, header + "10000032,F,52,2180,2014 - 2016,\n10000764,M,86,2130,2014,\n")
    index = MIMICCXRJPG(str(root), patients=str(table)).index
    assert index["sex"][:5].tolist() == ["F"] * 3 + ["M"] * 2
    np.testing.assert_array_equal(index["age"], [52, 52, 52, 88, 88, np.nan])


def test_a_partial_release(root):
    (root / image_path(ROWS[0])).unlink()
    (root / "mimic-cxr-2.0.0-chexpert.csv.gz").unlink()
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    module = MIMICCXRJPG(str(root), validation=0.0)
    with (
        pytest.warns(UserWarning, match=f"1 of 6 images are not there.*{FRONTAL}"),
        pytest.warns(UserWarning, match="patients are divided"),
    ):
        index = check_release(module)
    assert index["Atelectasis"].isna().all()
    assert index.groupby("patient_id")["split"].nunique().eq(1).all()


def rewrite(file, old, new):
    text = gzip.decompress(file.read_bytes()).decode()
    assert old in text
    file.write_bytes(gzip.compress(text.replace(old, new).encode()))


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("metadata", "subject_id", "subject", "metadata.csv.gz has no column 'subject_id'"),
        ("split", "validate", "middle", r"split.csv.gz: the split is 'middle' in row 4"),
        ("chexpert", "-1.0", "-2.0", r"chexpert.csv.gz: 'Edema' is '-2.0' in row 1"),
        ("chexpert", "Edema", "Oedema", r"chexpert.csv.gz has no column 'Edema'"),
    ],
)
def test_tables_that_make_no_sense(root, table, old, new, message):
    rewrite(root / f"mimic-cxr-2.0.0-{table}.csv.gz", old, new)
    with pytest.raises(InputError, match=message):
        MIMICCXRJPG(str(root)).make_index()


def test_what_is_no_such_release(root, tmp_path_factory):
    with pytest.raises(InputError, match="no release of MIMIC-CXR: it has no cxr-record-list"):
        MIMICCXR(str(root)).make_index()
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(InputError, match="no release of MIMIC-CXR-JPG"):
        MIMICCXRJPG(str(empty)).make_index()
    write_tables(empty)
    with pytest.raises(InputError, match="6 of 6 images are not there"):
        MIMICCXRJPG(str(empty)).make_index()
    with pytest.raises(InputError, match="it has no mimic-cxr-\\*-test-set-labeled"):
        MIMICCXRJPG(str(root), test_labels="radiologists").make_index()

import numpy as np
import pytest

from cxrssl.data.releases import parse_boxes
from cxrssl.data.releases.vindr import VINDR_FINDINGS, VinDrCXR, VinDrPCXR
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

FIRST, SECOND, TEST = ("0" * 31 + digit for digit in "abc")
PCXR = VinDrPCXR.findings


def row(findings, image, *found, reader=None):
    """Return a line of a table of image labels."""
    marks = ["1" if name in found else "0" for name in findings]
    return ",".join([image, *([reader] if reader else []), *marks])


@pytest.fixture
def root(tmp_path):
    first = [
        row(VINDR_FINDINGS, FIRST, "Cardiomegaly", "Other diseases", reader="R1"),
        row(VINDR_FINDINGS, FIRST, "Cardiomegaly", reader="R8"),
        row(VINDR_FINDINGS, FIRST, "Cardiomegaly", "Edema", "Other diseases", reader="R17"),
    ]
    second = [row(VINDR_FINDINGS, SECOND, "No finding", reader=f"R{n}") for n in (8, 9, 10)]
    header = ",".join(["image_id", "rad_id", *VINDR_FINDINGS])
    labels = tmp_path / "annotations"
    write_text(labels / "image_labels_train.csv", "\n".join([header, *first, *second]) + "\n")
    header = ",".join(["image_id", *VINDR_FINDINGS]).replace("Other diseases", "Other disease")
    test = row(VINDR_FINDINGS, TEST, "Other diseases", "Nodule/Mass")
    write_text(labels / "image_labels_test.csv", f"{header}\n{test}\n")
    write_text(
        labels / "annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n"
        f"{FIRST},R1,Cardiomegaly,691.0,1375.0,1653.0,1831.0\n"
        f"{FIRST},R8,Cardiomegaly,693.0,1377,1655,1833\n"
        f"{FIRST},R17,Edema,10.5,20,110,220\n"
        f"{SECOND},R8,No finding,,,,\n{SECOND},R9,No finding,,,,\n{SECOND},R10,No finding,,,,\n",
    )
    write_text(
        labels / "annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max\n"
        f"{TEST},Nodule/Mass,1,2,101,102\n{TEST},Nodule/Mass,2,2,102,102\n",
    )
    write_dicom(tmp_path / f"train/{FIRST}.dicom", 1, PatientSex="F", PatientAge="058Y")
    write_dicom(tmp_path / f"train/{SECOND}.dicom", 2, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / f"test/{TEST}.dicom", 3, WindowCenter=100, WindowWidth=150)
    return tmp_path


def test_the_whole_release(root):
    index = check_release(VinDrCXR(str(root), validation=0.0))
    assert index["split"].tolist() == ["train", "train", "test"]
    assert index["view_position"].eq("PA").all()
    assert index["patient_id"].isna().all()
    assert index["origin"].tolist() == [f"vindr:{name}" for name in (FIRST, SECOND, TEST)]
    assert "origin_patient" not in index
    assert index["sex"].isna().all()
    assert index["No finding"].tolist() == [0, 1, 0]
    assert index["Nodule/Mass"].tolist() == [0, 0, 1]


def test_the_test_table_spells_other_diseases_in_another_way(root):
    assert VinDrCXR(str(root)).index["Other diseases"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("readers", "expected"), [("majority", [1, 1, 0]), ("any", [1, 1, 1]), ("all", [1, 0, 0])]
)
def test_readers_who_disagree(root, readers, expected):
    index = VinDrCXR(str(root), readers=readers).index
    assert index.loc[0, ["Cardiomegaly", "Other diseases", "Edema"]].tolist() == expected
    # The consensus stays what it is.
    assert index.loc[2, ["Other diseases", "Nodule/Mass", "Edema"]].tolist() == [1, 1, 0]


def test_boxes_keep_their_readers(root):
    index = VinDrCXR(str(root)).index
    boxes = parse_boxes(index["boxes"][0])
    assert [(box.finding, box.reader) for box in boxes] == [
        ("Cardiomegaly", "R1"), ("Cardiomegaly", "R8"), ("Edema", "R17"),
    ]  # fmt: skip
    assert (boxes[2].left, boxes[2].top, boxes[2].right, boxes[2].bottom) == (10.5, 20, 110, 220)
    assert index["boxes"].isna().tolist() == [False, True, False]
    assert [box.reader for box in parse_boxes(index["boxes"][2])] == [None, None]


def test_fused_boxes_are_those_of_readers_not_of_the_consensus(root):
    index = VinDrCXR(str(root), boxes="fused").index
    heart, edema = parse_boxes(index["boxes"][0])
    assert (heart.left, heart.top, heart.right, heart.bottom) == (692, 1376, 1654, 1832)
    assert edema.finding == "Edema"
    assert len(parse_boxes(index["boxes"][2])) == 2


def test_headers_are_read_where_asked_for(root):
    index = check_release(VinDrCXR(str(root), read_headers=True))
    assert index["sex"][0] == "F"
    assert index["sex"].isna().tolist() == [False, True, True]
    np.testing.assert_allclose(index["age"], [58, np.nan, np.nan])
    assert index["view_position"].eq("PA").all()


def test_copies_of_another_format_in_one_folder(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("copies")
    for number, name in enumerate((FIRST, SECOND, TEST)):
        write_image(images / f"{name}.jpg", number)
    index = check_release(VinDrCXR(str(root), images=str(images), view_positions=["PA"]))
    assert len(index) == 3
    with pytest.raises(InputError, match=r"no image in .* is a DICOM file"):
        VinDrCXR(str(root), images=str(images), read_headers=True).make_index()


def test_a_release_in_part(root):
    (root / f"train/{SECOND}.dicom").unlink()
    with pytest.warns(UserWarning, match=r"1 of 3 images are not there.*b\.dicom"):
        assert len(VinDrCXR(str(root), read_headers=True).index) == 2
    (root / "annotations/image_labels_train.csv").unlink()
    (root / "annotations/annotations_test.csv").unlink()
    index = VinDrCXR(str(root)).index
    assert index["split"].tolist() == ["test"]
    assert index["boxes"].isna().all()


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match="readers must be one of majority, any, all, got 'most'"):
        VinDrCXR(str(root), readers="most")
    with pytest.raises(InputError, match="boxes must be one of readers, fused, got 'some'"):
        VinDrCXR(str(root), boxes="some")
    with pytest.raises(InputError, match=r"it has no annotations/image_labels_train.csv"):
        VinDrCXR(str(root / "train")).make_index()
    with pytest.raises(InputError, match="is it the table of another release"):
        VinDrPCXR(str(root)).make_index()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("image_labels_train.csv", "Cardiomegaly", "Heart", "no column 'Cardiomegaly'"),
        ("image_labels_train.csv", ",1,", ",2,", "'Cardiomegaly' is '2' in row 1"),
        ("image_labels_train.csv", ",1,", ",-1,", "'Cardiomegaly' is '-1' in row 1; a reader"),
        ("annotations_train.csv", "Edema", "Oedema", "'class_name' is 'Oedema' in row 3"),
        ("annotations_train.csv", "1375.0", "", "'y_min' is '' in row 1; a box has four"),
        ("annotations_test.csv", "x_min", "left", "has no column 'x_min'"),
    ],
)
def test_a_value_that_makes_no_sense(root, file, old, new, message):
    path = root / "annotations" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=f"{file}.*{message}"):
        VinDrCXR(str(root)).make_index()


@pytest.fixture
def children(tmp_path):
    header = ",".join(["image_id", "rad_ID", *PCXR])
    train = [
        row(PCXR, FIRST, "Brocho-pneumonia", "CPAM", reader="R1"),
        row(PCXR, SECOND, "No finding", reader="R2"),
    ]
    write_text(tmp_path / "image_labels_train.csv", "\n".join([header, *train]) + "\n")
    test = row(PCXR, TEST, "Diagphramatic hernia", reader="R3")
    write_text(tmp_path / "image_labels_test.csv", f"{header}\n{test}\n")
    header = "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max"
    boxes = f"{FIRST},R1,Diffuse aveolar opacity,1,2,3,4\n{SECOND},R2,No finding,,,,"
    write_text(tmp_path / "annotations_train.csv", f"{header}\n{boxes}\n")
    write_text(tmp_path / "annotations_test.csv", f"{header}\n{TEST},R3,Bronchectasis,1,2,3,4\n")
    ages = {FIRST: "018M", SECOND: "073D", TEST: "004Y"}
    for number, (name, age) in enumerate(ages.items()):
        folder = "test" if name == TEST else "train"
        write_dicom(tmp_path / f"{folder}/{name}.dicom", number, PatientAge=age, PatientSex="M",
                    ViewPosition="AP")  # fmt: skip
    return tmp_path


def test_the_whole_paediatric_release(children):
    index = check_release(VinDrPCXR(str(children), validation=0.0))
    assert index["split"].tolist() == ["train", "train", "test"]
    assert index["Brocho-pneumonia"].tolist() == [1, 0, 0]
    assert index["Diagphramatic hernia"].tolist() == [0, 0, 1]
    assert index["patient_id"].isna().all()
    assert index["view_position"].isna().all()
    assert index["origin"][0] == f"vindr-pcxr:{FIRST}"
    box = parse_boxes(index["boxes"][0])[0]
    assert (box.finding, box.reader) == ("Diffuse aveolar opacity", "R1")
    assert index["boxes"].isna().tolist() == [False, True, False]


def test_ages_of_children_come_in_several_units(children):
    index = VinDrPCXR(str(children), read_headers=True).index
    np.testing.assert_allclose(index["age"], [1.5, 0.2, 4], rtol=1e-3)
    assert index["sex"].eq("M").all()
    assert index["view_position"].eq("AP").all()


def test_views_are_read_where_they_are_chosen(children):
    assert len(VinDrPCXR(str(children), view_positions=["AP"]).index) == 3
    with pytest.raises(InputError, match=r"no image of .* is PA"):
        VinDrPCXR(str(children), view_positions=["PA"]).make_index()


def test_a_box_class_of_the_other_release(children):
    path = children / "annotations_train.csv"
    path.write_text(path.read_text().replace("Diffuse aveolar opacity", "Nodule/Mass"))
    with pytest.raises(InputError, match="'class_name' is 'Nodule/Mass' in row 1"):
        VinDrPCXR(str(children)).make_index()

import json

import numpy as np
import pytest

from cxrssl.data.releases import parse_boxes
from cxrssl.data.releases.rsna import RSNAPneumonia
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
LABELS = """\
patientId,x,y,width,height,Target
aa-1,,,,,0
bb-2,264.0,152.0,213.0,379.0,1
bb-2,562.0,152.0,256.0,453.5,1
cc-3,,,,,0
"""
CLASSES = """\
patientId,class
aa-1,No Lung Opacity / Not Normal
bb-2,Lung Opacity
bb-2,Lung Opacity
cc-3,Normal
"""
NAMES = {
    "aa-1": "00000013_005.png",
    "bb-2": "00000013_006.png",
    "cc-3": "00000208_000.png",
    "dd-4": "00000208_000.png",
}


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "stage_2_train_labels.csv", LABELS)
    write_text(tmp_path / "stage_2_detailed_class_info.csv", CLASSES)
    headers = {"aa-1": ("58", "PA"), "bb-2": ("155", "AP"), "cc-3": ("1", "PA"), "dd-4": ("", "")}
    for number, (name, (age, view)) in enumerate(headers.items()):
        folder = "stage_2_test_images" if name == "dd-4" else "stage_2_train_images"
        write_dicom(tmp_path / folder / f"{name}.dcm", number, jpeg=True, PatientID=name,
                    PatientAge=age, PatientSex="F", ViewPosition=view)  # fmt: skip
    return tmp_path


@pytest.fixture
def mapped(root):
    entries = [{"subset_img_id": name, "img_id": nih} for name, nih in NAMES.items()]
    write_text(root / MAPPING, json.dumps(entries))
    return root


def test_the_whole_release(root):
    module = RSNAPneumonia(str(root))
    index = check_release(module)
    assert index["origin"].tolist() == ["rsna:aa-1", "rsna:bb-2", "rsna:cc-3", "rsna:dd-4"]
    assert index["Normal"].tolist()[:3] == [0, 0, 1]
    assert index["No Lung Opacity / Not Normal"].tolist()[:3] == [1, 0, 0]
    assert index["Lung Opacity"].tolist()[:3] == [0, 1, 0]
    assert index.loc[3, module.labels].isna().all()
    assert index["patient_id"].isna().all()
    assert index["view_position"].isna().all()
    assert index["sex"].isna().all()


def test_two_boxes_of_one_image(root):
    index = RSNAPneumonia(str(root)).index
    first, second = parse_boxes(index["boxes"][1])
    assert first.finding == "Lung Opacity"
    assert (first.left, first.top, first.right, first.bottom) == (264, 152, 477, 531)
    assert second.bottom == 605.5
    assert index["boxes"].isna().tolist() == [True, False, True, True]


def test_headers_are_read_where_asked_for(root):
    index = RSNAPneumonia(str(root), read_headers=True).index
    np.testing.assert_allclose(index["age"], [58, np.nan, 1, np.nan])
    assert index["sex"].eq("F").all()
    assert index["view_position"].tolist()[:3] == ["PA", "AP", "PA"]
    assert len(RSNAPneumonia(str(root), view_positions=["PA"]).index) == 2


def test_without_the_classes_an_image_without_opacity_may_be_normal_or_not(root):
    (root / "stage_2_detailed_class_info.csv").unlink()
    index = check_release(RSNAPneumonia(str(root)))
    assert index["Lung Opacity"].tolist()[:3] == [0, 1, 0]
    for name in ("Normal", "No Lung Opacity / Not Normal"):
        np.testing.assert_array_equal(index[name], np.float32([np.nan, 0, np.nan, np.nan]))


def test_with_the_mapping_patients_are_those_of_nih(mapped):
    for seed in range(5):
        index = check_release(RSNAPneumonia(str(mapped), split_seed=seed))
        assert index["patient_id"].tolist() == ["13", "13", "208", "208"]
        assert index["origin"].tolist() == [f"nih:{name}" for name in NAMES.values()]
        assert index["origin_patient"].tolist() == ["nih:13", "nih:13", "nih:208", "nih:208"]
        assert index.groupby("patient_id")["split"].nunique().eq(1).all()


def test_an_image_that_the_mapping_lacks_keeps_its_own_name(mapped):
    path = mapped / MAPPING
    path.write_text(json.dumps(json.loads(path.read_text())[:-1]))
    index = RSNAPneumonia(str(mapped)).index
    assert index["origin"][3] == "rsna:dd-4"
    assert index[["patient_id", "origin_patient"]].isna().all(axis=1).tolist() == [False] * 3 + [
        True
    ]


def test_the_test_set_of_nih(mapped):
    tests = write_text(mapped / "lists/test_list.txt", "00000208_000.png\n00000099_000.png\n")
    options = {"nih_test_list": str(tests), "validation": 0.0}
    index = check_release(RSNAPneumonia(str(mapped), **options))
    assert index["split"].tolist() == ["train", "train", "test", "test"]
    write_text(tests, "00000099_000.png")
    with pytest.raises(InputError, match=r"test_list\.txt names none of the images"):
        RSNAPneumonia(str(mapped), **options).make_index()
    mapping = (mapped / MAPPING).rename(mapped / "lists/other.json")
    with pytest.raises(InputError, match="give it as nih_mapping"):
        RSNAPneumonia(str(mapped), **options).make_index()
    write_text(tests, "00000013_005.png\n00000013_006.png")
    index = RSNAPneumonia(str(mapped), nih_mapping=str(mapping), **options).index
    assert index["split"].tolist() == ["test", "test", "train", "train"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"aa-1": "00000013_005.png"}', "cannot be read as a list of objects"),
        ('[{"subset_img_id": "aa-1"}]', "cannot be read as a list of objects"),
        ('[{"subset_img_id": "aa-1", "img_id": "13"}]', "img_id is '13' for aa-1"),
        ("[", "cannot be read as a list of objects"),
    ],
)
def test_a_mapping_that_is_none(root, text, message):
    write_text(root / MAPPING, text)
    with pytest.raises(InputError, match=f"{MAPPING}.*{message}"):
        RSNAPneumonia(str(root)).make_index()


def test_copies_in_jpeg_beside_the_images(root):
    for number, name in enumerate(NAMES):
        write_image(root / f"stage_2_train_images/{name}.jpg", number)
    assert len(check_release(RSNAPneumonia(str(root)))) == 4


def test_a_release_in_part(root):
    (root / "stage_2_train_images/cc-3.dcm").unlink()
    with pytest.warns(UserWarning, match=r"1 of 4 images are not there.*cc-3\.dcm"):
        assert len(RSNAPneumonia(str(root)).index) == 3


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no stage_2_train_labels\.csv"):
        RSNAPneumonia(str(root / "stage_2_test_images")).make_index()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("stage_2_train_labels.csv", "Target", "target", "has no column 'Target'"),
        ("stage_2_train_labels.csv", ",,0", ",,yes", "'Target' is 'yes' in row 1"),
        ("stage_2_train_labels.csv", "453.5", "", "the box in row 3 has not four numbers"),
        ("stage_2_detailed_class_info.csv", " / ", "/", "'class' is 'No Lung Opacity/Not Normal'"),
        ("stage_2_detailed_class_info.csv", ",Normal", ",Lung Opacity", "its Target is 0"),
    ],
)
def test_a_value_that_makes_no_sense(root, file, old, new, message):
    path = root / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=f"{file}.*{message}"):
        RSNAPneumonia(str(root)).make_index()

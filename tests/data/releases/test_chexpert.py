import shutil

import numpy as np
import pandas as pd
import pytest

from cxrssl.data.releases.chexpert import CheXpert
from cxrssl.data.releases.chexpert_files import CHEXPERT_FINDINGS, chexpert_names, chexpert_paths
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image, write_text

HEADER = ",".join(["Path,Sex,Age,Frontal/Lateral,AP/PA", *CHEXPERT_FINDINGS])
POSITIVE = "1.0,,,,,,,,,0.0,,,,1.0"
TRAIN = [
    f"patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,{POSITIVE}",
    "patient00002/study2/view1_frontal.jpg,Female,87,Frontal,PA,,,-1.0,1.0,,-1.0,-1.0,,-1.0,,-1.0,,1.0,",
    "patient00002/study1/view2_lateral.jpg,Male,83,Lateral,,,,,1.0,,,-1.0,,,,,,1.0,",
    "patient21514/study1/view1_frontal.jpg,Male,0,Frontal,LL,,,,,,,,,,,,,,",
    "patient43018/study1/view1_frontal.jpg,Unknown,50,Frontal,RL,,,,,,,,,,,,,,",
    "patient64540/study1/view1_frontal.jpg,Male,90,Frontal,AP,,,,,,,,,,,,,,",
]
VALID = [
    "patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP," + ",".join(["0.0", "1.0"] * 7),
    "patient64542/study1/view2_lateral.jpg,Male,70,Lateral,," + ",".join(["0.0", "1.0"] * 7),
]
TEST = [
    "patient64741/study1/view1_frontal.jpg",
    "patient64741/study1/view2_lateral.jpg",
    "patient64742/study1/view1_frontal.jpg",
]
TRUTH = [
    ",".join(["Study", *CHEXPERT_FINDINGS]),
    "CheXpert-v1.0/test/patient64741/study1," + ",".join(["0", "1"] * 7),
]


def write_table(file, prefix, rows):
    write_text(file, "\n".join([HEADER, *(prefix + row for row in rows)]) + "\n")


def path_of(row):
    return row.partition(",")[0]


def write_chexpert(root):
    """Write the miniature release into a folder, and return it."""
    write_table(root / "train.csv", "CheXpert-v1.0-small/train/", TRAIN)
    write_table(root / "valid.csv", "CheXpert-v1.0-small/valid/", VALID)
    for number, (part, row) in enumerate(
        [("train", row) for row in TRAIN] + [("valid", row) for row in VALID]
    ):
        write_image(root / part / path_of(row), number)
    return root


@pytest.fixture
def root(tmp_path):
    return write_chexpert(tmp_path)


def add_test(root):
    for number, name in enumerate(TEST):
        write_image(root / "test" / name, 100 + number)
    write_text(root / "groundtruth.csv", "\n".join(TRUTH))


def test_the_small_copy(root):
    index = check_release(CheXpert(str(root)))
    assert index["split"].tolist() == ["train"] * 6 + ["val"] * 2
    assert index["patient_id"].tolist()[:2] == ["patient00001", "patient00002"]
    assert index["study_id"][1] == "patient00002/study2"
    assert index["origin"][0] == "chexpert:patient00001/study1/view1_frontal"
    assert index["origin_patient"][0] == "chexpert:patient00001"
    np.testing.assert_array_equal(index["age"], [68, 87, 83, np.nan, 50, 90, 73, 70])
    assert index["sex"].fillna("?").tolist() == ["F", "F", "M", "M", "?", "M", "M", "M"]


def test_left_on_a_frontal_image_is_not_lateral(root):
    views = CheXpert(str(root)).index["view_position"].tolist()
    assert views == ["AP", "PA", "LATERAL", "OTHER", "OTHER", "AP", "AP", "LATERAL"]


def test_four_states_of_a_label(root):
    index = CheXpert(str(root)).index
    assert index["No Finding"][0] == 1
    assert index["Pneumothorax"][0] == 0
    assert index["Cardiomegaly"][1] == -1
    assert np.isnan(index["Edema"][0])


def test_the_whole_release_in_batches(root):
    write_table(root / "train.csv", "CheXpert-v1.0/train/", TRAIN)
    folders = {
        "CheXpert-v1.0 batch 2 (train 1)": TRAIN[:3],
        "CheXpert-v1.0 batch 3 (train 2)": TRAIN[3:4],
        "CheXpert-v1.0 batch 4 (train 3)": TRAIN[4:],
    }
    for folder, rows in folders.items():
        for row in rows:
            (root / folder / path_of(row)).parent.mkdir(parents=True)
            shutil.move(root / "train" / path_of(row), root / folder / path_of(row))
    first = root / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        shutil.move(root / name, first / name)
    shutil.rmtree(root / "train")
    assert len(check_release(CheXpert(str(root)))) == 8
    shutil.rmtree(root / "CheXpert-v1.0 batch 3 (train 2)")
    with pytest.warns(UserWarning, match="1 of 8 images are not there"):
        assert len(CheXpert(str(root)).index) == 7


def test_batches_begin_where_the_release_says(tmp_path):
    for number in (2, 3, 4):
        (tmp_path / f"batch {number}").mkdir()
    patients = (1, 21_513, 21_514, 43_017, 43_018, 64_540)
    paths = pd.Series([f"train/patient{n:05}/study1/view1_frontal.jpg" for n in patients])
    found = chexpert_paths(tmp_path, chexpert_names(paths, "train.csv"))
    assert [path[6] for path in found] == list("223344")
    assert found[0] == "batch 2/patient00001/study1/view1_frontal.jpg"


def test_a_folder_above_the_small_copy(root, tmp_path_factory):
    above = tmp_path_factory.mktemp("above")
    shutil.copytree(root, above / "CheXpert-v1.0-small")
    assert len(check_release(CheXpert(str(above)))) == 8


def test_test_labels_of_a_study_are_those_of_its_images(root):
    add_test(root)
    index = check_release(CheXpert(str(root)))
    test = index[index["split"] == "test"]
    assert len(test) == 3
    assert test["view_position"].fillna("?").tolist() == ["?", "LATERAL", "?"]
    assert test["Enlarged Cardiomediastinum"].tolist()[:2] == [1, 1]
    assert test["No Finding"].tolist()[:2] == [0, 0]
    assert test[list(CHEXPERT_FINDINGS)].iloc[2].isna().all()
    assert test["origin_patient"].tolist()[0] == "chexpert:patient64741"
    (root / "groundtruth.csv").unlink()
    index = check_release(CheXpert(str(root)))
    assert index.loc[index["split"] == "test", list(CHEXPERT_FINDINGS)].isna().all(axis=None)


def test_test_labels_of_images_and_without_images(root):
    add_test(root)
    lines = [TRUTH[0].replace("Study", "Path"), f"CheXpert/test/{TEST[0]},{'0,1,' * 6}0,1"]
    (root / "groundtruth.csv").unlink()
    write_text(root / "test_labels.csv", "\n".join(lines))
    index = CheXpert(str(root)).index
    assert index.loc[index["split"] == "test", "Fracture"].tolist()[:2] == [0, 0]
    write_text(root / "test_labels.csv", "\n".join(lines).replace("Path", "File"))
    with pytest.raises(InputError, match="has no column 'Study'"):
        CheXpert(str(root)).make_index()
    shutil.rmtree(root / "test")
    assert "test" not in set(CheXpert(str(root)).index["split"])


def test_labels_of_another_labeller(root):
    with pytest.raises(InputError, match=r"it has no train_cheXbert.csv"):
        CheXpert(str(root), labeller="chexbert").make_index()
    rows = [TRAIN[0].replace(POSITIVE, "0.0" + POSITIVE[3:]), *TRAIN[1:]]
    write_table(root / "train_cheXbert.csv", "CheXpert-v1.0/train/", rows)
    assert CheXpert(str(root), labeller="chexbert").index["No Finding"][0] == 0


def test_a_partial_release(root):
    (root / "valid.csv").unlink()
    module = CheXpert(str(root), validation=0.5)
    index = check_release(module)
    assert len(index) == 6
    assert index.groupby("patient_id")["split"].nunique().eq(1).all()
    (root / "train.csv").unlink()
    with pytest.raises(InputError, match=r"no release of CheXpert: it has no train.csv"):
        CheXpert(str(root)).make_index()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-1.0", "2.0", r"train.csv: 'Cardiomegaly' is '2.0' in row 2"),
        ("Frontal,PA", "Oblique,PA", r"train.csv: the view is 'Oblique' in row 2"),
        ("patient00001/", "00001/", r"train.csv: '.*/train/00001/.*' in row 1 is no path of CheX"),
        ("Lung Lesion", "Lesion", "train.csv has no column 'Lung Lesion'"),
    ],
)
def test_tables_that_make_no_sense(root, old, new, message):
    text = (root / "train.csv").read_text()
    (root / "train.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message):
        CheXpert(str(root)).make_index()

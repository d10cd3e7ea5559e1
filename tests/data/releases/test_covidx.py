import numpy as np
import pytest

from cxrssl.data import Merged
from cxrssl.data.releases.covidx import COVIDx
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image, write_text

UUID = "0a1b2c3d-0000-4000-8000-00000000000"
NINE_B = {
    "train": [
        f"{UUID}1 {UUID}1.png negative rsna",
        f"{UUID}2 {UUID}2.png negative rnsa",
        "COVID 1 COVID(1).png positive sirm",
        "3 MIDRC-3.jpg positive ricord",
        "3 cohen3.jpeg negative cohen",
        "12 12_s.png positive stonybrook",
    ],
    "test": ["77 MIDRC-77.png positive ricord", f"{UUID}9 {UUID}9.png negative rnsa"],
}


def write_release(root, lists, name="labels/{}_COVIDx9B.txt", folder="data/{}"):
    for split, lines in lists.items():
        write_text(root / name.format(split), "\n".join(lines) + "\n")
        for number, line in enumerate(lines):
            file = next(word for word in line.split() if "." in word)
            write_image(root / folder.format(split) / file, number, channels=1 + 2 * (number % 2))
    return root


@pytest.fixture
def root(tmp_path):
    return write_release(tmp_path, NINE_B)


def test_the_whole_release(root):
    index = check_release(COVIDx(str(root), validation=0.0))
    assert index["split"].tolist() == ["train"] * 6 + ["test"] * 2
    assert index["COVID-19"].tolist() == [0, 0, 1, 1, 0, 1, 1, 0]
    for name in ("normal", "pneumonia"):
        values = [np.nan, np.nan, 0, 0, np.nan, 0, 0, np.nan]
        np.testing.assert_array_equal(index[name], values)
    assert index["patient_id"].tolist()[1:6] == [
        f"rsna:{UUID}2", "sirm:COVID 1", "ricord:3", "cohen:3", "stonybrook:12",
    ]  # fmt: skip
    assert index["view_position"].isna().all()


def test_origins_are_those_of_the_pooled_collections(root):
    index = COVIDx(str(root)).index
    assert index["origin"].tolist()[:4] == [
        f"rsna:{UUID}1", f"rsna:{UUID}2", "covidx-sirm:COVID(1).png", "covidx-ricord:MIDRC-3.jpg",
    ]  # fmt: skip
    patients = index["origin_patient"]
    assert patients.isna().tolist() == [True, True] + [False] * 5 + [True]
    assert patients[2] == "covidx-sirm:COVID 1"


def test_lists_of_three_classes(tmp_path):
    lines = ["1 a.png COVID-19 cohen", "2 b.png normal rsna", "3 c.jpg pneumonia rsna"]
    root = write_release(tmp_path, {"train": lines}, "train_COVIDx9A.txt", "train")
    index = check_release(COVIDx(str(root), validation=0.0))
    np.testing.assert_array_equal(index[["COVID-19", "normal", "pneumonia"]], np.eye(3))


def test_the_oldest_list_has_no_sources_and_no_patients(tmp_path):
    lines = ["3 a.png COVID-19", "3 b.png normal", "3 c.jpg pneumonia"]
    root = write_release(tmp_path, {"train": lines}, "labels/{}_COVIDx.txt")
    index = check_release(COVIDx(str(root), version="", validation=0.0))
    assert index["patient_id"].isna().all()
    assert index["origin"].tolist() == ["covidx:a.png", "covidx:b.png", "covidx:c.jpg"]
    assert index["origin_patient"].isna().all()


def test_versions_are_taken_newest_first_or_as_asked(root):
    write_release(root, {"train": ["1 a.png normal rsna"]}, "labels/{}_COVIDx9A.txt")
    assert len(COVIDx(str(root)).index) == 8
    assert len(COVIDx(str(root), version="9A").index) == 1
    with pytest.raises(InputError, match=r"it has no labels/train_COVIDx8B.txt or train_COVIDx8B"):
        COVIDx(str(root), version="8B").make_index()
    with pytest.raises(InputError, match=r"version must be one of '9B', .*, got 'Sev'"):
        COVIDx(str(root), version="Sev")


def test_the_layout_of_kaggle(tmp_path):
    root = write_release(tmp_path, NINE_B, "{}.txt", "{}")
    assert len(check_release(COVIDx(str(root)))) == 8


def test_images_of_both_splits_in_one_folder_and_a_repeated_line(tmp_path):
    lists = {"train": [*NINE_B["train"], NINE_B["train"][0]], "test": NINE_B["test"]}
    root = write_release(tmp_path, lists, folder="all")
    assert len(check_release(COVIDx(str(root), images=str(root / "all")))) == 8


def test_a_part_of_the_images(root):
    (root / "data/train/12_s.png").unlink()
    with pytest.warns(UserWarning, match="1 of 8 images are not there"):
        assert len(COVIDx(str(root)).index) == 7


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no labels/train_COVIDx9B.txt"):
        COVIDx(str(root / "data")).make_index()
    for line in ("5 a.png level1 rsna", "a.png normal rsna", "normal", "5 a.png"):
        write_text(root / "labels/test_COVIDx9B.txt", f"{NINE_B['test'][0]}\n{line}\n")
        with pytest.raises(InputError, match=r"test_COVIDx9B.txt: row 2 is .* are expected"):
            COVIDx(str(root)).make_index()


def test_in_common_words_covid_is_not_without_pneumonia(tmp_path):
    lines = ["1 a.png COVID-19 cohen", "2 b.png normal rsna", "3 c.jpg pneumonia rsna"]
    root = write_release(tmp_path, {"train": lines}, "train_COVIDx9A.txt", "train")
    module = COVIDx(str(root), validation=0.0, vocabulary="common")
    np.testing.assert_array_equal(module.index["Pneumonia"], [np.nan, 0, 1])
    own = COVIDx(str(root), validation=0.0)
    np.testing.assert_array_equal(Merged({"covidx": own}).index["Pneumonia"], [np.nan, 0, 1])

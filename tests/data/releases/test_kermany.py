import numpy as np
import pytest

from cxrssl.data.releases.kermany import KermanyPneumonia
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image

FILES = [
    "train/NORMAL/IM-0115-0001.jpeg",
    "train/NORMAL/NORMAL2-IM-0027-0001.jpeg",
    "train/PNEUMONIA/person1_bacteria_1.jpeg",
    "train/PNEUMONIA/person1_bacteria_2.jpeg",
    "train/PNEUMONIA/other_7.jpeg",
    "val/NORMAL/NORMAL2-IM-1427-0001.jpeg",
    "val/PNEUMONIA/person1_bacteria_11.jpeg",
    "test/NORMAL/IM-0115-0001.jpeg",
    "test/PNEUMONIA/person1_virus_11.jpeg",
]


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(FILES):
        write_image(tmp_path / "chest_xray" / name, number, channels=3 if number % 3 == 0 else 1)
    return tmp_path


def test_the_whole_release(root):
    index = check_release(KermanyPneumonia(str(root), validation=0.0))
    assert [path.split("chest_xray/")[1] for path in index["path"]] == [
        *FILES[:2], FILES[4], *FILES[2:4], *FILES[5:],
    ]  # fmt: skip
    assert index["split"].tolist() == ["train"] * 7 + ["test"] * 2
    assert index["NORMAL"].tolist() == [1, 1, 0, 0, 0, 1, 0, 1, 0]
    assert (index["NORMAL"] + index["PNEUMONIA"] == 1).all()
    assert (index["view_position"] == "AP").all()


def test_persons_start_anew_in_the_test_images(root):
    index = KermanyPneumonia(str(root)).index
    persons = index["patient_id"]
    assert persons[index["NORMAL"] == 1].isna().all()
    assert persons.fillna("").tolist()[2:5] == ["", "train/person1", "train/person1"]
    assert persons[6] == "train/person1"
    assert persons[8] == "test/person1"
    # One name may stand in training and in test images.
    assert index["origin"].is_unique


def test_three_classes(root):
    module = KermanyPneumonia(str(root), classes="three", validation=0.0)
    index = check_release(module)
    assert module.labels == ["NORMAL", "bacteria", "virus"]
    np.testing.assert_array_equal(
        index[module.labels],
        [
            *[[1, 0, 0]] * 2,
            [0, np.nan, np.nan],
            *[[0, 1, 0]] * 2,
            [1, 0, 0],
            [0, 1, 0],
            [1, 0, 0],
            [0, 0, 1],
        ],
    )
    assert KermanyPneumonia.findings == ("NORMAL", "PNEUMONIA")


def test_archives_with_a_copy_of_themselves(root):
    for number, name in enumerate(FILES):
        write_image(root / "chest_xray/chest_xray" / name, number)
        write_image(root / "__MACOSX/chest_xray" / name).rename(
            (root / "__MACOSX/chest_xray" / name).with_name("._" + name.split("/")[-1])
        )
    assert len(check_release(KermanyPneumonia(str(root)))) == len(FILES)


def test_the_first_release_has_no_validation_folder(root):
    for number in (5, 6):
        (root / "chest_xray" / FILES[number]).unlink()
    assert len(check_release(KermanyPneumonia(str(root)))) == 7


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match="no images in train/NORMAL and the like"):
        KermanyPneumonia(str(root / "chest_xray/train")).make_index()

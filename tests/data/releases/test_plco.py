import pytest

from cxrssl.data.releases.plco import PLCO
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, grey, write_image, write_text

LISTS = {
    "train": "image_file_name,is_dead_cvd,is_dead\nA01.2.x,0,1\nA02,0,0\n",
    "val": "image_file_name,is_dead_cvd,is_dead\nA03,1,1\n",
    "test": "image_file_name,is_dead_cvd,is_dead\nA04,,1.0\n",
}
NAMES = ["A01.2.x", "A02", "A03", "A04"]


@pytest.fixture
def root(tmp_path):
    for split, text in LISTS.items():
        write_text(tmp_path / f"{split}.csv", text)
    for number, name in enumerate(NAMES):
        for folder in ("plco_512", "plco_512rotate"):
            write_image(tmp_path / "images" / folder / f"{name}.png", grey(number))
    return tmp_path


def test_the_whole_release(root):
    index = check_release(PLCO(str(root)))
    assert index["split"].tolist() == ["train", "train", "val", "test"]
    assert index["path"].str.contains("/plco_512rotate/").all()
    assert index["view_position"].eq("PA").all()
    assert index["patient_id"].isna().all()
    assert index["is_dead"].tolist() == [1, 0, 1, 1]
    assert index["is_dead_cvd"].isna().tolist() == [False, False, False, True]
    assert index["origin"][0] == "plco:A01.2.x"


def test_scans_as_they_are_stored_on_request(root):
    index = PLCO(str(root), images=str(root / "images" / "plco_512"), incomplete="refuse").index
    assert index["path"].str.contains("/plco_512/").all()


def test_participants_where_the_lists_say_them(root):
    write_text(root / "train.csv", "plco_id,image_file_name,is_dead_cvd,is_dead\nP-1,A02,0,0\n")
    write_text(root / "val.csv", "plco_id,image_file_name,is_dead_cvd,is_dead\n,A03,0,0\n")
    index = check_release(PLCO(str(root)))
    assert index["patient_id"].fillna("").tolist() == ["P-1", "", ""]
    assert index["origin_patient"].fillna("").tolist() == ["plco:P-1", "", ""]
    write_text(root / "val.csv", "plco_id,image_file_name,is_dead_cvd,is_dead\nP-1,A03,0,0\n")
    with pytest.raises(InputError, match=r"'P-1' .train and val."):
        _ = PLCO(str(root)).index


def test_a_part_of_the_lists_and_images(root):
    (root / "train.csv").unlink()
    (root / "images/plco_512rotate/A03.png").unlink()
    with pytest.warns(UserWarning, match="1 of 2 images are not there, for example A03"):
        assert PLCO(str(root)).index["split"].tolist() == ["test"]


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no train.csv or val.csv or test.csv"):
        PLCO(str(root / "images")).make_index()
    write_text(root / "val.csv", "image_file_name,is_dead_cvd,is_dead\nA03,yes,1\n")
    with pytest.raises(InputError, match=r"val.csv: 'is_dead_cvd' is 'yes' in row 1"):
        PLCO(str(root)).make_index()
    write_text(root / "val.csv", "image,label\nA03,1\n")
    with pytest.raises(InputError, match="has no column 'image_file_name'"):
        PLCO(str(root)).make_index()

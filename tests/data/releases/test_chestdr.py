import numpy as np
import pytest

from cxrssl.data.releases.chestdr import CHESTDR_FINDINGS, ChestDR
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image, write_text

NAMES = [f"00{letter}-{number}" for number, letter in enumerate("abcdef")]
LISTS = "data_backup/MedFMC/chest"


def bits(*ones):
    return ",".join("1" if number in ones else "0" for number in range(len(CHESTDR_FINDINGS)))


def write_list(root, name, numbers, labelled=True, suffix=".png"):
    lines = [NAMES[i] + suffix + (f" {bits(i)}" if labelled else "") for i in numbers]
    write_text(root / LISTS / name, "\n".join(lines))


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(NAMES):
        folder = "MedFMC_train" if number < 4 else "MedFMC_val"
        write_image(tmp_path / folder / f"chest/images/{name}.png", number)
    write_image(tmp_path / "MedFMC_train/colon/images/slide.png")
    write_list(tmp_path, "trainval.txt", [0, 1, 2, 3])
    write_list(tmp_path, "test_WithLabel.txt", [4])
    write_list(tmp_path, "test_WithoutLabel.txt", [5], labelled=False)
    write_text(tmp_path / "data_backup/MedFMC/colon/trainval.txt", "slide.png 1\n")
    write_text(tmp_path / "data_backup/MedFMC/colon/train_20.txt", "slide.png 1\n")
    return tmp_path


def write_table(root):
    rows = [f"{name}.png,{bits(number, 18)}" for number, name in enumerate(NAMES)]
    header = ",".join(("img_id", *CHESTDR_FINDINGS))
    write_text(root / "chestdr_published_19d.csv", "\n".join([header, *rows]) + "\n")


def test_the_whole_release(root):
    index = check_release(ChestDR(str(root), validation=0.0))
    assert index["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert index.loc[2, list(CHESTDR_FINDINGS[:4])].tolist() == [0, 0, 1, 0]
    assert index[list(CHESTDR_FINDINGS)].isna().all(axis=1).tolist() == [False] * 5 + [True]
    assert index["patient_id"].isna().all()
    assert index["origin"][0] == f"chestdr:{NAMES[0]}"


def test_the_lists_of_training_and_validation(root):
    write_list(root, "train_20.txt", [0, 1, 2])
    write_list(root, "val_20.txt", [3])
    assert ChestDR(str(root)).index["split"].tolist() == ["train"] * 3 + ["val"] + ["test"] * 2


def test_shots(root):
    write_list(root, "chest_1-shot_train_exp2.txt", [2])
    write_list(root, "chest_1-shot_val_exp2.txt", [0, 2])
    index = check_release(ChestDR(str(root), shots=1, experiment=2))
    assert index["origin"].str[-1].tolist() == ["2", "0", "4", "5"]
    assert index["split"].tolist() == ["train", "val", "test", "test"]
    with pytest.raises(InputError, match=r"has no chest_5-shot_train_exp1.txt"):
        ChestDR(str(root), shots=5).make_index()


def test_the_published_table_knows_the_labels_that_lists_lack(root):
    write_table(root)
    index = check_release(ChestDR(str(root)))
    assert index.loc[5, ["increased_lung_markings", "consolidation"]].tolist() == [0, 1]
    assert index.loc[5, CHESTDR_FINDINGS[5]] == 1
    assert index.loc[0, "consolidation"] == 0  # lists first


def test_the_published_table_alone(root):
    write_table(root)
    for file in (root / LISTS).iterdir():
        file.unlink()
    index = check_release(ChestDR(str(root), split=(0.5, 0.25, 0.25)))
    assert len(index) == 6


def test_copies_as_jpeg(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("MedFMC_chest_512")
    for number, name in enumerate(NAMES):
        write_image(images / f"{name}.jpg", number)
    (root / LISTS / "test_WithLabel.txt").rename(root / LISTS / "test.txt")
    index = check_release(ChestDR(str(root), images=str(images)))
    assert index["path"].str.endswith(".jpg").all()
    assert (index["split"] == "test").sum() == 2


@pytest.mark.parametrize("cell", ["1,0", bits() + ",1", bits().replace("0", "2", 1)])
def test_lists_of_other_labels(root, cell):
    write_text(root / LISTS / "trainval.txt", f"a.png {bits()}\nb.png {cell}\n")
    with pytest.raises(InputError, match=rf"trainval.txt: row 2 has the labels '{cell}'; 19"):
        ChestDR(str(root)).make_index()


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"neither lists such as trainval.txt nor chestdr_publ"):
        ChestDR(str(root / "MedFMC_train")).make_index()
    write_table(root)
    table = root / "chestdr_published_19d.csv"
    table.write_text(table.read_text().replace("TB,", "tuberculosis,"))
    with pytest.raises(InputError, match=r"19d.csv has no column 'TB'"):
        ChestDR(str(root)).make_index()


def test_an_image_that_is_not_there(root):
    (root / f"MedFMC_val/chest/images/{NAMES[4]}.png").unlink()
    with pytest.warns(UserWarning, match="1 of 6 images are not there"):
        index = ChestDR(str(root), validation=0.0).index
    assert np.array_equal(index["split"], ["train"] * 4 + ["test"])

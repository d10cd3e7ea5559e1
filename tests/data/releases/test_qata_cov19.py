import numpy as np
import pandas as pd
import pytest

from cxrssl.data.releases.qata_cov19 import QaTaCOV19
from cxrssl.errors import InputError
from tests.data.releases.miniature import SIZE, check_release, write_image

IMAGES = {"Train Set": ["covid_1", "covid_2", "sub-S1_vp-ap_dx"], "Test Set": ["covid_3"]}


def write_spreadsheet(path, rows):
    """Write a table whose first row names the columns."""
    pd.DataFrame(rows[1:], columns=rows[0]).to_excel(path, index=False)


def infection(seed):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[seed : seed + 9, 5:12] = 255
    return mask


@pytest.fixture
def root(tmp_path):
    for folder, names in IMAGES.items():
        for number, name in enumerate(names):
            place = tmp_path / "QaTa-COV19/QaTa-COV19-v2" / folder
            write_image(place / f"Images/{name}.png", number)
            write_image(place / f"Ground-truths/mask_{name}.png", infection(number))
    return tmp_path


def test_the_whole_release(root):
    module = QaTaCOV19(str(root), validation=0.0)
    index = check_release(module)
    assert index["split"].tolist() == ["train"] * 3 + ["test"]
    assert index["COVID-19"].tolist() == [1] * 4
    assert index["patient_id"].isna().all()
    assert index["origin"][2] == "qatacov19:sub-S1_vp-ap_dx"
    masks = module.make_masks(index, ["infection"])
    np.testing.assert_array_equal(masks.read(1, (SIZE, SIZE))[0], infection(1) // 255)


def test_the_lists_of_lvit(root):
    write_spreadsheet(root / "Val_ID.xlsx", [["Image"], ["mask_covid_2.png"]])
    rows = [["Image", "Description"], ["mask_covid_1.png", "Bilateral infection."]]
    write_spreadsheet(root / "Train_text.xlsx", [*rows, ["mask_covid_2.png", ""]])
    index = check_release(QaTaCOV19(str(root)))
    assert index["split"].tolist() == ["train", "val", "train", "test"]
    assert index["text"].fillna("").tolist() == ["Bilateral infection.", "", "", ""]


def test_an_image_without_a_mask_is_not_annotated(root):
    (root / "QaTa-COV19/QaTa-COV19-v2/Train Set/Ground-truths/mask_covid_1.png").unlink()
    assert QaTaCOV19(str(root)).index["mask/infection"].isna().tolist() == [True] + [False] * 3


def test_half_a_release_and_none(root, tmp_path_factory):
    inner = root / "QaTa-COV19/QaTa-COV19-v2"
    assert len(check_release(QaTaCOV19(str(inner)))) == 4
    with pytest.raises(InputError, match="no images in Train Set/Images or Test Set/Images"):
        QaTaCOV19(str(inner / "Test Set")).make_index()
    for path in (inner / "Train Set/Images").iterdir():
        path.unlink()
    assert check_release(QaTaCOV19(str(root)))["split"].tolist() == ["test"]


def test_spreadsheets_that_are_none(root):
    write_spreadsheet(root / "Val_ID.xlsx", [["Name"], ["mask_covid_2.png"]])
    with pytest.raises(InputError, match=r"Val_ID.xlsx has no column 'Image'; it has \['Name'\]"):
        QaTaCOV19(str(root)).make_index()
    for content in (b"Image\nmask_covid_2.png", b"PK\x03\x04"):
        (root / "Val_ID.xlsx").write_bytes(content)
        with pytest.raises(InputError, match=r"Val_ID.xlsx cannot be read as an .xlsx table"):
            QaTaCOV19(str(root)).make_index()

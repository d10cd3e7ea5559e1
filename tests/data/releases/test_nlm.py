import cv2
import numpy as np
import pytest

from cxrssl.data.releases.nlm import SHENZHEN_FINDINGS, Montgomery, Shenzhen
from cxrssl.errors import InputError
from tests.data.releases.miniature import SIZE, check_release, grey, write_image, write_text

READINGS = {
    "CHNCXR_0001_0": "male 45yrs\nnormal\n",
    "CHNCXR_0002_0": "Female , 2month\n\nnormal",
    "CHNCXR_0327_1": "female 28yr\n\n1.bilateral PTB\n2.right pleuritis",
}


def rectangle(left, right, size=SIZE):
    """Return a mask (H, W) between two columns."""
    mask = np.zeros((size, size), np.uint8)
    mask[4:-4, left:right] = 255
    return mask


# Shenzhen


@pytest.fixture
def shenzhen(tmp_path):
    folder = tmp_path / "ChinaSet_AllFiles"
    for number, (name, text) in enumerate(READINGS.items()):
        write_image(folder / f"CXR_png/{name}.png", number, channels=3 if number == 1 else 1)
        write_text(folder / f"ClinicalReadings/{name}.txt", text)
        if number != 2:
            write_image(tmp_path / f"mask/mask/{name}_mask.png", rectangle(3, 20))
    return tmp_path


def write_regions(root, cell="2"):
    counts = ["0"] * len(SHENZHEN_FINDINGS)
    counts[:2] = [cell, "0"]
    write_text(
        root / "Annotations-2/Statistics_ShenzhenDataset_US.csv",
        f"imagename,{','.join(SHENZHEN_FINDINGS)}\nCHNCXR_0327_1.png,{','.join(counts)}\n",
    )
    # A mask of a region, with the label and the name of an image in its own name.
    write_image(root / "Annotations-2/masks/CHNCXR_0327_1_Pleural_Effusion_2.png")


def test_shenzhen(shenzhen):
    module = Shenzhen(str(shenzhen))
    index = check_release(module)
    assert index["patient_id"].tolist() == list(READINGS)
    assert index["origin"][0] == "shenzhen:CHNCXR_0001_0"
    assert index["TB"].tolist() == [0, 0, 1]
    assert index["sex"].tolist() == ["M", "F", "F"]
    np.testing.assert_allclose(index["age"], [45, 2 / 12, 28])
    texts = ["normal", "normal", "1.bilateral PTB\n2.right pleuritis"]
    assert index["text"].tolist() == texts
    assert (index["view_position"] == "PA").all()
    assert index[list(SHENZHEN_FINDINGS)].isna().all(axis=None)


def test_one_image_of_shenzhen_has_no_mask(shenzhen):
    module = Shenzhen(str(shenzhen))
    assert module.index["mask/lungs"].isna().tolist() == [False, False, True]
    masks = module.make_masks(module.index, ["lungs"])
    np.testing.assert_array_equal(masks.read(0, (SIZE, SIZE))[0], rectangle(3, 20) // 255)
    # Resized copies of the images keep the masks of the release.
    double = np.kron(rectangle(3, 20) // 255, np.ones((2, 2)))
    np.testing.assert_array_equal(masks.read(1, (2 * SIZE, 2 * SIZE))[0], double)


def test_regions_of_shenzhen_are_known_of_patients_in_the_table(shenzhen):
    write_regions(shenzhen)
    index = check_release(Shenzhen(str(shenzhen)))
    assert index["Pleural_Effusion"].isna().tolist() == [True, True, False]
    assert index.loc[2, ["Pleural_Effusion", "Apical_Thickening"]].tolist() == [1, 0]
    write_regions(shenzhen, "many")
    with pytest.raises(InputError, match=r"US.csv: 'Pleural_Effusion' is 'many' in row 1"):
        Shenzhen(str(shenzhen)).make_index()


def test_images_of_shenzhen_elsewhere(shenzhen, tmp_path_factory):
    images = tmp_path_factory.mktemp("small")
    for number, name in enumerate(READINGS):
        write_image(images / f"{name}.jpg", grey(number, size=8))
    module = Shenzhen(str(shenzhen), images=str(images))
    index = check_release(module)
    assert index["path"].str.endswith(".jpg").all()
    assert module.make_masks(index, ["lungs"]).read(0, (8, 8)).any()


def test_an_image_of_shenzhen_with_a_reading_only(shenzhen):
    (shenzhen / "ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png").unlink()
    with pytest.warns(UserWarning, match="1 of 3 images are not there.*CHNCXR_0001_0"):
        assert len(Shenzhen(str(shenzhen)).index) == 2


# Montgomery

NAMES = ["MCUCXR_0001_0", "MCUCXR_0104_1", "MCUCXR_0108_1"]
FIELDS = [
    "Patient's Sex: F\nPatient's Age: 040Y\nnormal\n",
    "Patient's Sex: M\nPatient's Age: 000Y\nRUL infiltrate:\ncavity\n",
    "",
]


@pytest.fixture
def montgomery(tmp_path):
    write_montgomery(tmp_path)
    return tmp_path


def write_montgomery(root, left=(13, 20), right=(3, 10)):
    folder = root / "MontgomerySet"
    for number, (name, text) in enumerate(zip(NAMES, FIELDS, strict=True)):
        shape = (SIZE, 30) if number else (30, SIZE)  # one lies on its side
        write_image(folder / f"CXR_png/{name}.png", cv2.resize(grey(number), shape))
        write_text(folder / f"ClinicalReadings/{name}.txt", text)
        for side, columns in (("left", left), ("right", right)):
            mask = cv2.resize(rectangle(*columns, 30), shape, interpolation=cv2.INTER_NEAREST)
            write_image(folder / f"ManualMask/{side}Mask/{name}.png", mask)


def test_montgomery(montgomery):
    index = check_release(Montgomery(str(montgomery)))
    assert index["path"].str.contains("CXR_png").all()
    assert index["TB"].tolist() == [0, 1, 1]
    assert index["sex"].fillna("").tolist() == ["F", "M", ""]
    np.testing.assert_allclose(index["age"], [40, np.nan, np.nan])
    assert index["text"].fillna("").tolist() == ["normal", "RUL infiltrate:\ncavity", ""]


@pytest.mark.parametrize("left", [(13, 20), (3, 10)])
def test_the_left_lung_of_montgomery_is_on_the_right(montgomery, left):
    other = {(13, 20): (3, 10), (3, 10): (13, 20)}[left]
    write_montgomery(montgomery, left, other)
    module = Montgomery(str(montgomery))
    masks = module.make_masks(module.index, module.structures)
    for number, shape in enumerate([(SIZE, 30), (30, SIZE), (30, SIZE)]):
        lungs, left_lung, right_lung = masks.read(number, shape)
        assert np.nonzero(left_lung)[1].mean() > np.nonzero(right_lung)[1].mean()
        np.testing.assert_array_equal(lungs, left_lung | right_lung)


def test_damaged_and_missing_masks_of_montgomery(montgomery):
    folder = montgomery / "MontgomerySet/ManualMask"
    (folder / "leftMask/MCUCXR_0001_0.png").write_bytes(b"broken")
    (folder / "leftMask/MCUCXR_0104_1.png").unlink()
    write_image(folder / "leftMask/MCUCXR_0108_1.png", np.zeros((30, SIZE), np.uint8))
    index = Montgomery(str(montgomery)).index
    assert index["mask/left lung"].str.contains("leftMask").fillna(False).tolist() == [1, 0, 1]
    assert index["mask/lungs"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("release", [Shenzhen, Montgomery])
def test_what_is_no_set(release, tmp_path):
    write_image(tmp_path / "00000001_000.png")
    with pytest.raises(InputError, match=r"is no release of .*no image or reading in it"):
        release(str(tmp_path)).make_index()

import numpy as np
import pytest
from PIL import Image

from cxrssl.data.image import read_image
from cxrssl.data.releases import parse_boxes
from cxrssl.data.releases.jsrt import JSRT
from cxrssl.errors import InputError
from tests.data.releases.miniature import SIZE, check_release, grey, write_image, write_text

NODULES = [
    "JPCLN001.IMG\t5\t15\t53\tMale\t1634\t692\tmalignant\tl.upper lobe\t\t\tlung cancer",
    "JPCLN002.IMG\t3\t20\t?\tFemale\t100\t50\tbenign\tr.upper lobe\t\t\tgranuloma",
]
OTHERS = ["JPCNN001.IMG   71  female  non-nodule", "JPCNN002.IMG   ?  male   non-nodule"]
NAMES = ["JPCLN001", "JPCLN002", "JPCNN001", "JPCNN002"]
STRUCTURES = ["heart", "left lung", "right lung", "left clavicle", "right clavicle"]


def write_tables(root):
    write_text(root / "Clinical_Information/CLNDAT_EN.txt", "\n".join(NODULES) + "\n", "\r")
    write_text(root / "Clinical_Information/CNNDAT_EN.TXT", "\n".join(OTHERS) + "\n", "\r")


def area(structure, size=SIZE):
    """Return a mask (H, W) that no other structure has."""
    mask = np.zeros((size, size), np.uint8)
    start = 4 * STRUCTURES.index(structure)
    mask[start : start + 4, :-2] = 255
    return mask


@pytest.fixture
def converted(tmp_path):
    write_tables(tmp_path)
    for number, name in enumerate(NAMES):
        write_image(tmp_path / f"images/{name}.jpg", grey(number))
        for structure in STRUCTURES:
            folder = tmp_path / "masks" / structure.replace(" ", "_")
            write_image(folder / f"{name}.png", area(structure))
    return tmp_path


def test_converted_copies(converted):
    module = JSRT(str(converted), validation=0.0)
    index = check_release(module)
    assert index["patient_id"].tolist() == NAMES
    assert index["split"].tolist() == ["train", "test", "train", "test"]
    assert index["nodule"].tolist() == [1, 1, 0, 0]
    assert index["malignant"].tolist() == [1, 0, 0, 0]
    assert index["sex"].tolist() == ["M", "F", "F", "M"]
    np.testing.assert_allclose(index["age"], [53, np.nan, 71, np.nan])
    masks = module.make_masks(index, [*STRUCTURES, "lungs"]).read(0, (SIZE, SIZE))
    expected = [area(structure) // 255 for structure in STRUCTURES]
    np.testing.assert_array_equal(masks, [*expected, expected[1] | expected[2]])


def test_boxes_are_squares_about_the_nodules(converted):
    index = JSRT(str(converted)).index
    box, edge = (parse_boxes(text)[0] for text in index["boxes"][:2])
    assert (box.left + box.right) / 2 == pytest.approx(1634, abs=0.1)
    assert (box.top + box.bottom) / 2 == pytest.approx(692, abs=0.1)
    assert box.right - box.left == pytest.approx(15 / 0.175, abs=0.2)
    assert (edge.top, edge.left) == (0, pytest.approx(100 - 10 / 0.175, abs=0.1))
    assert index["boxes"].isna().tolist() == [False, False, True, True]


@pytest.fixture
def original(tmp_path):
    """A raw image of 4 x 4 blocks and one bright spot, with masks of half its size."""
    write_tables(tmp_path)
    blocks = np.arange(16, dtype=">u2").reshape(4, 4) * 200
    stored = np.kron(blocks, np.ones((512, 512))).astype(">u2")
    stored[600:640, 100:140] = 0  # inverted: nothing is brighter
    (tmp_path / "All247images").mkdir()
    (tmp_path / "All247images/JPCLN001.IMG").write_bytes(stored.tobytes())
    mask = np.zeros((1024, 1024), np.uint8)
    mask[300:320, 50:70] = 255
    for fold, name in ((1, "JPCLN001"), (2, "JPCLN002")):
        for structure in STRUCTURES:
            folder = tmp_path / f"scratch/fold{fold}/masks/{structure}"
            folder.mkdir(parents=True)
            Image.fromarray(mask).save(folder / f"{name}.gif")
    return tmp_path


def test_raw_images_and_masks_of_half_their_size(original):
    module = JSRT(str(original))
    with pytest.warns(UserWarning, match=r"3 of 4 images are not there, .*JPCLN002"):
        index = check_release(module)
    assert index["path"].str.endswith("All247images/JPCLN001.IMG").all()
    pixels = read_image(index["path"][0]).pixels
    inside = module.make_masks(index, ["heart"]).read(0, pixels.shape)[0] == 1
    assert inside.sum() == 40 * 40
    assert (pixels[inside] == 255).all()
    assert pixels[-1, -1] == round((4095 - 3000) / 4095 * 255)


def test_without_tables_names_tell_of_nodules(converted):
    for file in (converted / "Clinical_Information").iterdir():
        file.unlink()
    index = check_release(JSRT(str(converted), validation=0.0))
    assert index["nodule"].tolist() == [1, 1, 0, 0]
    np.testing.assert_array_equal(index["malignant"], [np.nan, np.nan, 0, 0])
    assert index["boxes"].isna().all()


def test_a_nodule_without_a_size_has_no_box(converted):
    file = converted / "Clinical_Information/CLNDAT_EN.txt"
    file.write_text(file.read_text().replace("\t15\t", "\t?\t"))
    assert JSRT(str(converted)).index["boxes"].isna()[0]


def test_what_is_no_jsrt(converted, tmp_path_factory):
    file = converted / "Clinical_Information/CLNDAT_EN.txt"
    file.write_text(file.read_text().replace("benign", "unclear"))
    message = r"CLNDAT_EN.txt: row 2 \(JPCLN002.IMG\) does not say malignant or benign"
    with pytest.raises(InputError, match=message):
        JSRT(str(converted)).make_index()
    with pytest.raises(InputError, match=r"no image such as JPCLN001.IMG"):
        JSRT(str(tmp_path_factory.mktemp("empty"))).make_index()

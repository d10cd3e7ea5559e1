import json

import numpy as np
import pytest

from cxrssl.data.releases.vindr_ribcxr import VinDrRibCXR
from cxrssl.errors import InputError
from tests.data.releases.miniature import SIZE, check_release, write_image, write_text

RIBS = [f"{side}{rib}" for side in "RL" for rib in range(1, 11)]


def square(left, top, size=4):
    low, high = (left, top), (left + size, top + size)
    return [{"x": x, "y": y} for x, y in (low, (high[0], low[1]), high, (low[0], high[1]))]


def write_ribs(root, split, masks, prefix=""):
    """Write the file of a split, whose images have the masks {rib: polygon}, others a square."""
    images = {
        str(n): f"{prefix}data/{split}/img/VinDr_RibCXR_{split}_{n:03}.png"
        for n in range(len(masks))
    }
    ribs = {rib: {str(n): own.get(rib, square(1, 1)) for n, own in enumerate(masks)}
            for rib in RIBS}  # fmt: skip
    write_text(root / f"Vindr_RibCXR_{split}_mask.json", json.dumps({"img": images} | ribs))
    for number in range(len(masks)):
        path = f"data/{split}/img/VinDr_RibCXR_{split}_{number:03}.png"
        write_image(root / path, number + 10 * len(split))


@pytest.fixture
def root(tmp_path):
    write_ribs(tmp_path, "train", [{"R1": square(2, 3), "R2": square(4, 3)}, {"L10": "None"}])
    write_ribs(tmp_path, "val", [{}], prefix="/somewhere/else/")
    return tmp_path


def test_the_whole_release(root):
    module = VinDrRibCXR(str(root))
    index = check_release(module)
    assert index["split"].tolist() == ["train", "train", "val"]
    assert index["origin"][0] == "vindr-ribcxr:VinDr_RibCXR_train_000.png"
    assert index["view_position"].eq("PA").all()
    assert index["patient_id"].isna().all()
    assert module.labels == []
    assert module.structures == RIBS == list(module.structures_of_masks)


def test_ribs_overlap_and_may_be_absent(root):
    module = VinDrRibCXR(str(root))
    masks = module.make_masks(module.index, ["R1", "R2", "L10"])
    first, second = masks.read(0, (SIZE, SIZE)), masks.read(1, (SIZE, SIZE))
    expected = np.zeros((SIZE, SIZE))
    expected[3:8, 2:7] = 1
    np.testing.assert_array_equal(first[0], expected)
    assert (first[0] & first[1]).any()
    assert not second[2].any()
    assert module.has_mask(module.index, "L10").all()


def test_a_rib_that_is_not_spoken_of_is_not_known(root):
    path = root / "Vindr_RibCXR_train_mask.json"
    table = json.loads(path.read_text())
    del table["L3"]["0"]
    path.write_text(json.dumps(table))
    module = VinDrRibCXR(str(root))
    assert module.has_mask(module.index, "L3").tolist() == [False, True, True]


def test_a_release_in_part(root):
    (root / "data/train/img/VinDr_RibCXR_train_001.png").unlink()
    with pytest.warns(UserWarning, match="1 of 3 images are not there"):
        assert len(VinDrRibCXR(str(root)).index) == 2
    (root / "Vindr_RibCXR_train_mask.json").unlink()
    assert VinDrRibCXR(str(root)).index["split"].tolist() == ["val"]


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no Vindr_RibCXR_train_mask.json"):
        VinDrRibCXR(str(root / "data")).make_index()
    path = root / "Vindr_RibCXR_train_mask.json"
    text = path.read_text()
    path.write_text(text.replace('"R7"', '"R77"'))
    with pytest.raises(InputError, match=r"train_mask.json has no object 'R7'"):
        VinDrRibCXR(str(root)).make_index()
    path.write_text(text.replace('"None"', '"gone"'))
    with pytest.raises(InputError, match=r"train_mask.json: L10 of '1' is 'gone'"):
        VinDrRibCXR(str(root)).make_index()
    path.write_text(text[:-1])
    with pytest.raises(InputError, match=r"train_mask\.json cannot be read as JSON"):
        VinDrRibCXR(str(root)).make_index()

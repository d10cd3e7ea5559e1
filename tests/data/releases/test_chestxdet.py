import json

import numpy as np
import pytest

from cxrssl.data.releases import parse_boxes
from cxrssl.data.releases.chestxdet import ChestXDet, ChestXDet10
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image

TRIANGLES = [[[100, 100], [300, 100], [100, 300]], [[500, 500], [700, 500], [500, 700]]]
TRAIN = [
    {
        "file_name": "36200.png",
        "syms": ["Effusion", "Nodule", "Effusion"],
        "boxes": [[100, 100, 300, 300], [1, 2, 3, 4], [500, 500, 700, 700]],
        "polygons": [TRIANGLES[0], [[1, 2], [3, 2], [3, 4]], TRIANGLES[1]],
    },
    {"file_name": "36201.png", "syms": [], "boxes": [], "polygons": []},
]
TEST = [
    {
        "file_name": "36300.png",
        "syms": ["Mass"],
        "boxes": [[0, 0, 9, 9]],
        "polygons": [[[0, 0], [9, 0], [9, 9]]],
    }
]


def write(root, names="ChestX_Det_{}.json", train=TRAIN, test=TEST, polygons=True):
    for split, items in (("train", train), ("test", test)):
        kept = [
            {key: value for key, value in item.items() if polygons or key != "polygons"}
            for item in items
        ]
        (root / names.format(split)).write_text(json.dumps(kept))
        for number, item in enumerate(items):
            write_image(root / f"{split}_data" / item["file_name"], number)
    return str(root)


def test_the_whole_release(tmp_path):
    index = check_release(ChestXDet(write(tmp_path), validation=0.0))
    assert index["split"].tolist() == ["train", "train", "test"]
    assert index["origin"].tolist()[0] == "chestxdet:36200"
    assert index["patient_id"].isna().all()
    assert index.loc[0, ["Effusion", "Nodule", "Mass"]].tolist() == [1, 1, 0]
    assert not index.loc[1, list(ChestXDet.findings)].any()


def test_boxes_are_corners(tmp_path):
    index = ChestXDet(write(tmp_path)).index
    boxes = parse_boxes(index["boxes"][0])
    assert [box.finding for box in boxes] == ["Effusion", "Nodule", "Effusion"]
    assert (boxes[2].left, boxes[2].top, boxes[2].right, boxes[2].bottom) == (500, 500, 700, 700)
    assert index["boxes"].isna().tolist() == [False, True, False]


def test_polygons_of_a_finding_are_united_and_follow_the_image(tmp_path):
    module = ChestXDet(write(tmp_path))
    masks = module.make_masks(module.index, ["Effusion", "Mass"])
    effusion, mass = masks.read(0, (1024, 1024))
    assert effusion[150, 150] == effusion[550, 550] == 1
    assert effusion.sum() == pytest.approx(2 * 200 * 200 / 2, rel=0.03)
    assert not mass.any()
    small = masks.read(0, (256, 256))[0]
    assert small[150 // 4, 150 // 4] == small[550 // 4, 550 // 4] == 1
    assert not masks.read(1, (1024, 1024)).any()


def test_ten_findings(tmp_path):
    module = ChestXDet10(write(tmp_path, "{}.json", polygons=False), validation=0.0)
    index = check_release(module)
    assert len(module.findings) == 10
    assert module.structures == []
    assert index.loc[2, "Mass"] == 1
    assert index["origin"][0] == "chestxdet10:36200"


def test_images_in_one_folder_and_one_list(tmp_path):
    root = write(tmp_path)
    for split in ("train", "test"):
        (tmp_path / f"{split}_data").rename(tmp_path / f"{split}_images")
    assert len(check_release(ChestXDet(root))) == 3
    (tmp_path / "ChestX_Det_test.json").unlink()
    assert check_release(ChestXDet(root))["origin"].str[-5:].tolist() == ["36200", "36201"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"syms": ["Oedema"]}, r"test.json: 36300.png has 'Oedema', no finding of Atelectasis"),
        ({"boxes": []}, "has 1 findings and 0 boxes"),
        ({"boxes": [[1, 2, 3]]}, r"has the box \[1, 2, 3\]; x1, y1, x2 and y2"),
        ({"polygons": []}, "has 1 findings and 0 polygons"),
        ({"boxes": None}, "item 1 lacks file_name, syms or boxes"),
    ],
)
def test_wrong_items(tmp_path, change, message):
    item = {key: value for key, value in (TEST[0] | change).items() if value is not None}
    with pytest.raises(InputError, match=message):
        ChestXDet(write(tmp_path, test=[item])).make_index()


def test_what_is_no_such_release(tmp_path):
    root = write(tmp_path)
    with pytest.raises(InputError, match=r"is no release of ChestX-Det10: it has no train.json"):
        ChestXDet10(root).make_index()
    for text, message in (("[{", "cannot be read as JSON"), ("{}", "holds no list of images")):
        (tmp_path / "ChestX_Det_train.json").write_text(text)
        with pytest.raises(InputError, match=message):
            ChestXDet(root).make_index()
    assert np.array_equal(ChestXDet10.traps, ChestXDet.traps)

import json

import numpy as np
import pytest

from cxrssl.data.releases.boxes import parse_boxes
from cxrssl.data.releases.chest_imagenome import ZONES, ChestImaGenome
from cxrssl.errors import InputError
from tests.data.releases.mimic_miniature import BLANK, FRONTAL, LAST, ROWS, SKIPPED, write_mimic
from tests.data.releases.miniature import SIZE, check_release, write_text

GOLD = SKIPPED
MISSING = "ffffffff-ffffffff-ffffffff-ffffffff-ffffffff"
BOXES = [
    ("right lung", 2, 2, 11, 20),
    ("right upper lung zone", 2, 2, 11, 8),
    ("right upper lung zone", 0, 0, 5, 5),  # repeated
    ("right mid lung zone", 7, 8, 7, 14),  # no area
    ("right lower lung zone", 2.5, 14, 11, 20),
    ("left upper lung zone", 13, 2, 22, 8),
    ("left mid lung zone", 13, 8, 22, 14),
]


def graph(name, boxes=BOXES, attributes=("anatomicalfinding|yes|lung opacity",)):
    row = next(row for row in ROWS if row[0] == name)
    objects = [
        {
            "bbox_name": region, "x1": 1, "y1": 1, "x2": 9, "y2": 9,
            "original_x1": x1, "original_y1": y1, "original_x2": x2, "original_y2": y2,
            "original_width": x2 - x1, "original_height": y2 - y1,
        }
        for region, x1, y1, x2, y2 in boxes
    ]  # fmt: skip
    return {
        "image_id": name,
        "viewpoint": row[3] or "PA",
        "patient_id": int(row[1]),
        "study_id": int(row[2]),
        "objects": objects,
        "attributes": [
            {"bbox_name": "right lung", "attributes": [list(attributes)], "phrases": ["..."]}
        ],
    }


def write_graph(root, name, folder="scene_graph/scene_graph", **parts):
    file = root / "silver_dataset" / folder / f"{name}_SceneGraph.json"
    return write_text(file, json.dumps(graph(name, **parts)))


@pytest.fixture
def images(tmp_path_factory):
    return write_mimic(tmp_path_factory.mktemp("mimic"))


@pytest.fixture
def root(tmp_path):
    write_graph(tmp_path, FRONTAL)
    write_graph(tmp_path, BLANK, boxes=BOXES[:1], attributes=["anatomicalfinding|no|lung opacity"])
    write_graph(tmp_path, LAST, boxes=[], attributes=["disease|no|pneumonia"])
    write_graph(tmp_path, GOLD)
    splits = tmp_path / "silver_dataset/splits"
    for name, rows in (
        ("train", [FRONTAL, BLANK, MISSING]), ("valid", [LAST]), ("test", []),
        ("images_to_avoid", [GOLD]),
    ):  # fmt: skip
        lines = ["", *(f"{n},{image},1,2" for n, image in enumerate(rows))]
        write_text(splits / f"{name}.csv", ",dicom_id,subject_id,study_id" + "\n".join(lines))
    return tmp_path


def test_the_whole_release(root, images):
    module = ChestImaGenome(str(root), images=str(images))
    index = check_release(module).set_index("origin")
    assert set(index.index) == {f"mimic:{name}" for name in (FRONTAL, BLANK, LAST)}
    first = index.loc[f"mimic:{FRONTAL}"]
    assert first["patient_id"] == "10000032"
    assert first["study_id"] == "50414267"
    assert first["view_position"] == "AP"
    assert first["split"] == "train"
    assert index.loc[f"mimic:{LAST}", "split"] == "val"
    assert module.structures == list(ZONES)


def test_boxes_with_an_area_once_for_each_region(root, images):
    index = ChestImaGenome(str(root), images=str(images)).index.set_index("origin")
    boxes = parse_boxes(index.loc[f"mimic:{FRONTAL}", "boxes"])
    assert [box.finding for box in boxes] == [
        "right lung", "right upper lung zone", "right lower lung zone", "left upper lung zone",
        "left mid lung zone",
    ]  # fmt: skip
    upper = boxes[1]
    assert (upper.left, upper.top, upper.right, upper.bottom) == (2, 2, 11, 8)
    assert index["boxes"].isna()[f"mimic:{LAST}"]
    index = ChestImaGenome(str(root), images=str(images), regions="zones").index
    index = index.set_index("origin")
    assert len(parse_boxes(index.loc[f"mimic:{FRONTAL}", "boxes"])) == 4
    assert index["boxes"].isna().sum() == 2


def test_zones_are_masks(root, images):
    module = ChestImaGenome(str(root), images=str(images))
    number = module.index["origin"].tolist().index(f"mimic:{FRONTAL}")
    masks = module.make_masks(module.index, ZONES).read(number, (SIZE, SIZE))
    upper = np.zeros((SIZE, SIZE), np.uint8)
    upper[2:8, 2:11] = 1
    np.testing.assert_array_equal(masks[0], upper)
    assert (masks[1] == 255).all()  # of no area
    assert (masks[5] == 255).all()  # not there
    assert not np.logical_and(masks[3] == 1, masks[4] == 1).any()


def test_labels_of_attributes(root, images):
    index = ChestImaGenome(str(root), images=str(images)).index.set_index("origin")
    labels = index["lung opacity"]
    assert labels[f"mimic:{FRONTAL}"] == 1
    assert labels[f"mimic:{BLANK}"] == 0
    assert np.isnan(labels[f"mimic:{LAST}"])
    module = ChestImaGenome(str(root), images=str(images), attributes=["pneumonia"])
    assert module.index.columns[-1] == "pneumonia"
    check_release(module)
    with pytest.raises(InputError, match="attribute 'rain'; there are lung opacity, pneumonia"):
        ChestImaGenome(str(root), images=str(images), attributes=["rain"]).make_index()


def test_what_any_region_has_the_image_has(root, images):
    both = ["anatomicalfinding|yes|lung opacity", "anatomicalfinding|no|lung opacity"]
    write_graph(root, BLANK, attributes=both)
    write_graph(root, LAST, attributes=both[::-1])
    index = ChestImaGenome(str(root), images=str(images)).index
    assert (index["lung opacity"] == 1).all()


def test_the_split_of_mimic(root, images):
    options = {"images": str(images), "official_split": "mimic"}
    index = ChestImaGenome(str(root), **options).index.set_index("origin")
    assert index.loc[f"mimic:{LAST}", "split"] == "test"
    (images / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    with pytest.raises(InputError, match=r"has no mimic-cxr-2.0.0-split.csv.gz"):
        ChestImaGenome(str(root), **options).make_index()


def test_graphs_alone(root, images):
    for file in (root / "silver_dataset/splits").iterdir():
        file.unlink()
    assert len(check_release(ChestImaGenome(str(root), images=str(images)))) == 4


def test_what_is_no_such_release(root, images):
    with pytest.raises(InputError, match=r"no file \*_SceneGraph.json; unpack"):
        ChestImaGenome(str(images)).make_index()
    with pytest.raises(InputError, match=r"3 of 3 images are not there.*as images"):
        ChestImaGenome(str(root)).make_index()
    splits = root / "silver_dataset/splits"
    (splits / "valid.csv").unlink()
    write_text(splits / "train.csv", f"dicom_id\n{MISSING}\n")
    with pytest.raises(InputError, match="no scene graph is of an image that the split lists"):
        ChestImaGenome(str(root), images=str(images)).make_index()
    write_text(splits / "train.csv", f"dicom\n{MISSING}\n")
    with pytest.raises(InputError, match=r"train.csv has no column 'dicom_id'"):
        ChestImaGenome(str(root), images=str(images)).make_index()


@pytest.mark.parametrize(("old", "new"), [("objects", "things"), ("yes|", "yes;"), ("{", "(")])
def test_graphs_that_make_no_sense(root, images, old, new):
    file = write_graph(root, FRONTAL)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError, match=f"{FRONTAL}_SceneGraph.json cannot be read as a scene"):
        ChestImaGenome(str(root), images=str(images)).make_index()

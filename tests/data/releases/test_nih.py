import numpy as np
import pytest

from cxrssl.data import NIHChestXray14
from cxrssl.data.releases import parse_boxes
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_image, write_text

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = [
    "00000001_000.png,Cardiomegaly,0,1,58,M,PA,2682,2749,0.143,0.143",
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,058Y,M,PA,2894,2729,0.143,0.143",
    "00000002_000.png,No Finding,0,2,414,F,AP,2500,2048,0.171,0.171",
    "00000003_000.png,Pleural_Thickening,0,3,74,F,PA,2500,2048,0.171,0.171",
    "00000003_001.png,Infiltration,1,3,75,F,PA,2500,2048,0.171,0.171",
    "00000004_000.png,Hernia,0,4,006M,F,PA,2500,2048,0.171,0.171",
]
FOLDERS = ["images_001", "images_002", "images_002", "images_001", "images_001", "images_003"]


def write_nih(root):
    """Write the miniature release into a folder, and return it."""
    write_text(root / "Data_Entry_2017_v2020.csv", "\n".join([HEADER, *ROWS]) + "\n")
    for number, (row, folder) in enumerate(zip(ROWS, FOLDERS, strict=True)):
        path = root / folder / "images" / row.partition(",")[0]
        write_image(path, number, channels=4 if number == 2 else 1)
    write_text(
        root / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        "00000003_001.png,Infiltrate,2.5,3,10,4,,,\n00000003_001.png,Mass,0,0,1,1,,,\n",
    )
    write_text(root / "train_val_list.txt", "\n".join(row.split(",")[0] for row in ROWS[:3]))
    test = "\n".join(row.split(",")[0] for row in ROWS[3:])
    write_text(root / "test_list.txt", test + "\n")
    return root


@pytest.fixture
def root(tmp_path):
    return write_nih(tmp_path)


def test_the_whole_release(root):
    module = NIHChestXray14(str(root), validation=0.0)
    index = check_release(module)
    assert index["patient_id"].tolist() == ["1", "1", "2", "3", "3", "4"]
    assert index["split"].tolist() == ["train"] * 3 + ["test"] * 3
    assert index["sex"].tolist() == ["M", "M", "F", "F", "F", "F"]
    np.testing.assert_allclose(index["age"], [58, 58, np.nan, 74, 75, 0.5])
    assert index["view_position"].tolist() == ["PA", "PA", "AP", "PA", "PA", "PA"]
    assert index.loc[1, ["Cardiomegaly", "Emphysema", "Mass"]].tolist() == [1, 1, 0]
    assert index["origin"][0] == "nih:00000001_000.png"
    assert index["origin_patient"][0] == "nih:1"


def test_boxes_are_corners_with_the_tables_spelling(root):
    index = NIHChestXray14(str(root)).index
    boxes = parse_boxes(index["boxes"][4])
    assert [box.finding for box in boxes] == ["Infiltration", "Mass"]
    assert (boxes[0].left, boxes[0].top, boxes[0].right, boxes[0].bottom) == (2.5, 3, 12.5, 7)
    assert index["boxes"].isna().sum() == 5


def test_the_table_of_2017_ends_its_rows_with_a_comma(root):
    (root / "Data_Entry_2017_v2020.csv").unlink()
    rows = [line + "," for line in (HEADER, *ROWS)]
    write_text(root / "Data_Entry_2017.csv", "\n".join(rows), newline="\r\n")
    assert len(check_release(NIHChestXray14(str(root)))) == 6


@pytest.mark.parametrize("missing", ["train_val_list.txt", "test_list.txt"])
def test_one_list_tells_the_other(root, missing):
    (root / missing).unlink()
    index = NIHChestXray14(str(root), validation=0.0).index
    assert index["split"].tolist() == ["train"] * 3 + ["test"] * 3


def test_without_lists_patients_are_split(root):
    (root / "train_val_list.txt").unlink()
    (root / "test_list.txt").unlink()
    module = NIHChestXray14(str(root), split=(0.5, 0.25, 0.25))
    with pytest.warns(UserWarning, match="which is not the official split"):
        index = module.index
    assert index.groupby("patient_id")["split"].nunique().eq(1).all()


def test_validation_patients_come_out_of_training(root):
    drawn = [NIHChestXray14(str(root), validation=0.5, split_seed=seed) for seed in range(4)]
    assert any("val" in set(module.index["split"]) for module in drawn)
    for module in drawn:
        assert module.index["split"][3:].eq("test").all()
        assert module.index.groupby("patient_id")["split"].nunique().eq(1).all()


def test_images_that_are_not_there(root):
    (root / "images_003/images/00000004_000.png").unlink()
    with pytest.warns(UserWarning, match="1 of 6 images are not there.*00000004_000.png"):
        assert len(NIHChestXray14(str(root)).index) == 5
    with pytest.raises(InputError, match="set incomplete to warn"):
        NIHChestXray14(str(root), incomplete="refuse").make_index()
    with pytest.raises(InputError, match="unpack the images"):
        NIHChestXray14(str(root), images=str(root / "images_003")).make_index()


def test_resized_copies_of_another_suffix_elsewhere(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("resized")
    for number, row in enumerate(ROWS):
        write_image(images / (row.partition(".")[0] + ".jpg"), number)
    index = check_release(NIHChestXray14(str(root), images=str(images)))
    assert index["path"].str.endswith(".jpg").all()
    assert index["origin"][0] == "nih:00000001_000.png"


def test_the_common_vocabulary_and_chosen_views(root):
    module = NIHChestXray14(str(root), vocabulary="common", view_positions=["PA"])
    index = check_release(module)
    assert len(index) == 5
    assert "Pleural Thickening" in module.labels
    assert "Nodule or Mass" in module.labels
    assert "Pleural_Thickening" not in module.labels


def test_what_is_no_such_release(root, tmp_path):
    with pytest.raises(InputError, match="is no folder"):
        NIHChestXray14(str(root / "nowhere")).make_index()
    with pytest.raises(InputError, match=r"it has no Data_Entry_2017_v2020.csv"):
        NIHChestXray14(str(root / "images_001")).make_index()
    table = root / "Data_Entry_2017_v2020.csv"
    text = table.read_text()
    table.write_text(text.replace("|Emphysema", "|Emphysma"))
    with pytest.raises(InputError, match=r"v2020.csv: 'Emphysma' in row 2 is no finding"):
        NIHChestXray14(str(root)).make_index()
    table.write_text(text.replace("Finding Labels", "Labels"))
    with pytest.raises(InputError, match="has no column 'Finding Labels'; it has 'Image Index'"):
        NIHChestXray14(str(root)).make_index()

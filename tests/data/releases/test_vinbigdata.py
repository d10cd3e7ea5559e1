import pytest

from cxrssl.data.releases import parse_boxes
from cxrssl.data.releases.vinbigdata import VinBigData
from cxrssl.errors import InputError
from tests.data.releases.miniature import check_release, write_dicom, write_image, write_text

ROWS = """\
image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
aaaa,No finding,14,R8,,,,
aaaa,No finding,14,R9,,,,
aaaa,No finding,14,R10,,,,
bbbb,Cardiomegaly,3,R8,691.0,1375.0,1653.0,1831.0
bbbb,Cardiomegaly,3,R10,691.0,1375.0,1655.0,1831.0
bbbb,Other lesion,9,R9,10.0,20.0,30.0,40.0
bbbb,Other lesion,9,R9,50.0,60.0,70.0,80.0
"""


@pytest.fixture
def root(tmp_path):
    write_text(tmp_path / "train.csv", ROWS)
    write_dicom(tmp_path / "train/aaaa.dicom", 1)
    write_dicom(tmp_path / "train/bbbb.dicom", 2, PhotometricInterpretation="MONOCHROME1")
    write_dicom(tmp_path / "test/cccc.dicom", 3)
    return tmp_path


def test_the_whole_release(root):
    module = VinBigData(str(root), split=(1.0, 0.0, 0.0), validation=0.0)
    index = check_release(module)
    assert index["origin"].tolist() == ["vindr:aaaa", "vindr:bbbb", "vindr:cccc"]
    assert index["split"].tolist() == ["train", "train", "test"]
    assert index["view_position"].eq("PA").all()
    assert index["patient_id"].isna().all()
    assert index["No finding"].tolist()[:2] == [1, 0]
    assert index.loc[2, module.labels].isna().all()


@pytest.mark.parametrize(
    ("readers", "expected"), [("majority", [1, 0, 0]), ("any", [1, 1, 0]), ("all", [0, 0, 0])]
)
def test_a_reader_who_drew_two_boxes_is_one_reader(root, readers, expected):
    index = VinBigData(str(root), readers=readers).index
    assert index.loc[1, ["Cardiomegaly", "Other lesion", "ILD"]].tolist() == expected
    assert index.loc[0, "No finding"] == 1


def test_boxes_of_readers_and_fused(root):
    boxes = parse_boxes(VinBigData(str(root)).index["boxes"][1])
    assert [box.reader for box in boxes] == ["R8", "R10", "R9", "R9"]
    assert boxes[0].left == 691
    index = VinBigData(str(root), boxes="fused").index
    boxes = parse_boxes(index["boxes"][1])
    assert [box.finding for box in boxes] == ["Cardiomegaly", "Other lesion", "Other lesion"]
    assert (boxes[0].right, boxes[0].reader) == (1654, None)
    assert index["boxes"].isna().tolist() == [True, False, True]


def test_resized_copies_whose_table_has_more_columns(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("copies")
    write_image(images / "train/aaaa.png", 1)
    write_image(images / "train/bbbb.png", 2)
    header, *rows = ROWS.splitlines()
    rows = [f"{header},width,height", *(row.replace(",,,,", ",0,0,1,1") + ",9,9" for row in rows)]
    write_text(root / "train.csv", "\n".join(rows))
    index = check_release(VinBigData(str(root), images=str(images)))
    assert index["path"].str.endswith(".png").all()
    assert index["boxes"].isna().tolist() == [True, False]


def test_a_release_in_part(root):
    (root / "train/aaaa.dicom").unlink()
    with pytest.warns(UserWarning, match="1 of 3 images are not there.*aaaa.dicom"):
        assert len(VinBigData(str(root)).index) == 2


def test_what_is_no_such_release(root):
    with pytest.raises(InputError, match=r"it has no train\.csv"):
        VinBigData(str(root / "train")).make_index()
    with pytest.raises(InputError, match="readers must be one of"):
        VinBigData(str(root), readers="none")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Other lesion", "Lesion", "'class_name' is 'Lesion' in row 6; it is one of Aortic"),
        ("1831.0", "?", r"'y_max' is '\?' in row 4"),
        ("rad_id", "reader", "has no column 'rad_id'"),
    ],
)
def test_a_value_that_makes_no_sense(root, old, new, message):
    write_text(root / "train.csv", ROWS.replace(old, new, 1))
    with pytest.raises(InputError, match=f"train.csv.*{message}"):
        VinBigData(str(root)).make_index()

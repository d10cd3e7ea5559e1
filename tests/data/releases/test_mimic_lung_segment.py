import cv2
import numpy as np
import pytest

from cxrssl.data.releases.mimic_lung_segment import MIMICLungSegment
from cxrssl.errors import InputError
from tests.data.releases.mimic_miniature import BLANK, FRONTAL, LAST, ROWS, write_mimic
from tests.data.releases.miniature import SIZE, check_release, write_image

LUNGS = np.zeros((SIZE, SIZE), np.uint8)
LUNGS[4:20, 3:10] = 90
LUNGS[4:20, 14:21] = 120
REST = np.where(LUNGS > 0, 0, 50).astype(np.uint8)


@pytest.fixture
def images(tmp_path_factory):
    return write_mimic(tmp_path_factory.mktemp("mimic"))


def write_pairs(root, lungs, rest, names=(FRONTAL, BLANK)):
    for name in names:
        write_image(root / lungs.format(name), LUNGS)
        write_image(root / rest.format(name), REST)


@pytest.mark.parametrize(
    ("lungs", "rest"),
    [
        ("{}_lung.png", "{}_rest.png"),
        ("lung-segment/{}_seg.png", "lung-segment/{}_non_seg.png"),
        ("lungs/{}.jpg.png", "non-lungs/{}.jpg.png"),
        ("{}-lung.png", "{}.png"),
        ("files/p10/{}/a_segmented.tif", "files/p10/{}/b.tif"),
    ],
)
def test_pairs_however_they_are_named(tmp_path, images, lungs, rest):
    write_pairs(tmp_path, lungs, rest)
    module = MIMICLungSegment(str(tmp_path), images=str(images))
    index = check_release(module)
    assert sorted(index["origin"]) == sorted([f"mimic:{FRONTAL}", f"mimic:{BLANK}"])
    assert index["patient_id"].tolist() == ["10000032"] * 2
    assert set(index["view_position"]) == {"AP", "PA"}
    assert index["path"].str.startswith(str(images)).all()
    np.testing.assert_array_equal(
        module.make_masks(index, ["lungs"]).read(0, (SIZE, SIZE)), [LUNGS > 0]
    )
    assert module.structures == ["lungs"]


def test_holes_are_filled_and_the_outline_stays(tmp_path, images):
    lungs = cv2.resize(LUNGS, (240, 240), interpolation=cv2.INTER_NEAREST)
    black = lungs.copy()
    black[100:105, 50:55] = 0  # small, inside
    black[60:100, 150:190] = 0  # large
    black[41, 30] = 0  # in the border
    write_image(tmp_path / f"{FRONTAL}_lung.png", black)
    write_image(tmp_path / f"{FRONTAL}_rest.png", np.zeros_like(black))
    module = MIMICLungSegment(str(tmp_path), images=str(images))
    mask = module.make_masks(module.index, ["lungs"]).read(0, (240, 240))[0]
    assert mask[100:105, 50:55].all()
    assert not mask[60:100, 150:190].any()
    assert mask[41, 30] == 0
    assert not mask[lungs == 0].any()
    small = module.make_masks(module.index, ["lungs"]).read(0, (SIZE, SIZE))
    assert small.shape == (1, SIZE, SIZE)


def test_a_study_with_one_frontal_image_names_it(tmp_path, images):
    for study in ("50414267", "57375967", "59999999"):
        write_pairs(tmp_path, "s{}_lung.png", "s{}_rest.png", [study])
    module = MIMICLungSegment(str(tmp_path), images=str(images))
    with pytest.warns(UserWarning, match="1 studies do not have one frontal image"):
        index = module.index
    assert sorted(index["study_id"]) == ["50414267", "57375967"]
    for file in images.glob("mimic-cxr*"):
        file.unlink()
    with pytest.raises(InputError, match=r"name studies, not images, and .* has no table"):
        MIMICLungSegment(str(tmp_path), images=str(images)).make_index()


def test_without_tables_paths_say_whose_images_they_are(tmp_path, images):
    for file in images.glob("mimic-cxr*"):
        file.unlink()
    write_pairs(tmp_path, "{}_lung.png", "{}_rest.png", [FRONTAL, LAST])
    index = check_release(MIMICLungSegment(str(tmp_path), images=str(images)))
    owners = {f"mimic:{row[0]}": (row[1], row[2]) for row in ROWS}
    for row in index.itertuples():
        assert (row.patient_id, row.study_id) == owners[row.origin]


def test_images_that_are_not_there(tmp_path, images):
    unknown = "0" * 8 + "-00000000" * 4
    write_pairs(tmp_path, "{}_lung.png", "{}_rest.png", [FRONTAL, unknown])
    module = MIMICLungSegment(str(tmp_path), images=str(images))
    with pytest.warns(UserWarning, match=f"1 of 2 images are not there, for example {unknown}"):
        assert len(module.index) == 1


def test_files_without_a_partner(tmp_path, images):
    write_pairs(tmp_path, "{}_lung.png", "{}_rest.png", [FRONTAL])
    write_image(tmp_path / f"{BLANK}_lung.png", LUNGS)
    write_image(tmp_path / "logo.png", LUNGS)
    with pytest.warns(UserWarning, match=r"2 images are not the lungs and the rest.*logo.png"):
        assert len(MIMICLungSegment(str(tmp_path), images=str(images)).index) == 1


def test_what_is_no_such_release(tmp_path, images):
    with pytest.raises(InputError, match="give the folder of MIMIC-CXR-JPG as images"):
        MIMICLungSegment(str(images)).make_index()
    with pytest.raises(InputError, match=r"example none, as there are no images; unpack"):
        MIMICLungSegment(str(tmp_path), images=str(images)).make_index()
    write_pairs(tmp_path, "{}_a.png", "{}_b.png")
    with pytest.raises(InputError, match=f"4 images are not the lungs.*{FRONTAL}_a.png"):
        MIMICLungSegment(str(tmp_path), images=str(images)).make_index()

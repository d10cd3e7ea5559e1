import gzip

import numpy as np
import pytest

from cxrssl.data.releases.chexmask import CheXmask
from cxrssl.errors import InputError
from tests.data.releases.mimic_miniature import BLANK, FRONTAL, write_mimic
from tests.data.releases.miniature import check_release, grey, write_dicom, write_image, write_text

RUNS = "6 1 10 2"
MASK = np.zeros((4, 4), np.uint8)
MASK[[1, 2, 2], [1, 1, 2]] = 1
LISTED = '"1,2,3,4"'
PRINTED = '"[[1 2]\n [3 4]]"'
COLUMNS = "Dice RCA (Mean),Dice RCA (Max),Landmarks,Left Lung,Right Lung,Heart,Height,Width"
NIH = [f"0000000{n}_000.png" for n in (1, 2, 3)]


def row(name, mean=0.9, high=0.95, landmarks=LISTED, left=RUNS, height=4, width=4):
    return f"{name},{mean},{high},{landmarks},{left},1 1,16 1,{height},{width}"


def write_table(root, source, key, rows, folder="OriginalResolution", columns=COLUMNS):
    text = "\n".join([f"{key},{columns}", *rows]) + "\n"
    return write_text(root / folder / f"{source}.csv", text)


@pytest.fixture
def root(tmp_path):
    rows = [row(NIH[0]), row(NIH[1], landmarks=PRINTED), row(NIH[2], mean=0.69)]
    write_table(tmp_path, "ChestX-Ray8", "Image Index", rows)
    return tmp_path


@pytest.fixture
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nih")
    for number, name in enumerate(NIH):
        write_image(folder / "images_001/images" / name, grey(number, 4))
    return folder


def test_masks_of_nih(root, images):
    module = CheXmask(str(root), images=str(images))
    index = check_release(module)
    assert index["origin"].tolist() == [f"nih:{name}" for name in NIH[:2]]
    assert index["origin_patient"].tolist() == ["nih:1", "nih:2"]
    assert index["patient_id"].tolist() == ["1", "2"]
    assert module.structures == ["left lung", "right lung", "heart"]
    masks = module.make_masks(index, module.structures).read(1, (4, 4))
    np.testing.assert_array_equal(masks[0], MASK)
    assert masks[1].tolist()[0] == [1, 0, 0, 0]
    assert masks[2].tolist()[3] == [0, 0, 0, 1]


def test_quality(root, images):
    assert len(CheXmask(str(root), images=str(images), quality=0).index) == 3
    assert len(CheXmask(str(root), images=str(images), quality=0.9).index) == 2
    with pytest.raises(InputError, match=r"no mask has a quality of 0.99: set quality lower"):
        CheXmask(str(root), images=str(images), quality=0.99).make_index()
    with pytest.raises(InputError, match="quality must be a Dice in"):
        CheXmask(str(root), quality=70)


def test_images_of_another_size(root, images, tmp_path_factory):
    large = tmp_path_factory.mktemp("large")
    for number, name in enumerate(NIH):
        write_image(large / name, grey(number, 8))
    module = CheXmask(str(root), images=str(large))
    masks = module.make_masks(module.index, ["left lung"]).read(0, (8, 8))
    np.testing.assert_array_equal(masks[0], MASK.repeat(2, 0).repeat(2, 1))


def test_each_image_has_its_own_size(root, images):
    rows = [row(NIH[0]), row(NIH[1], left="6 1", height=2, width=8)]
    write_table(root, "ChestX-Ray8", "Image Index", rows)
    module = CheXmask(str(root), images=str(images))
    masks = module.make_masks(module.index[::-1], ["left lung"])
    np.testing.assert_array_equal(masks.read(1, (4, 4))[0], MASK)
    wide = np.zeros((1, 2, 8), np.uint8)
    wide[0, 0, 5] = 1
    np.testing.assert_array_equal(masks.read(0, (2, 8)), wide)


def test_masks_of_images_brought_to_1024_pixels(root, images, tmp_path_factory):
    left = "1 524288"  # the upper half
    table = write_table(
        root, "ChestX-Ray8", "Image Index", [row(NIH[0], left=left)], "Preprocessed"
    )
    compressed = gzip.compress(table.read_bytes())
    table.unlink()
    (root / "Preprocessed/ChestX-Ray8.csv.gz").write_bytes(compressed)
    module = CheXmask(str(root), images=str(images), resolution="preprocessed")
    masks = module.make_masks(module.index, ["left lung"]).read(0, (4, 4))
    assert masks[0].tolist() == [[1] * 4] * 2 + [[0] * 4] * 2


def test_mean_and_maximum_of_padchest_are_swapped(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("padchest")
    names = [f"1496801992455524886569451272653771176{n}_3r162a.png" for n in (1, 2, 3)]
    for number, name in enumerate(names):
        write_image(images / "images/0" / name, number)
    columns = "Dice RCA (Max),Dice RCA (Mean),Landmarks,Heart,Left Lung,Right Lung,Width,Height"
    rows = [f"{names[0]},0.6,0.8,{LISTED},1 1,{RUNS},1 1,4,4",
            f"{names[1]},0.8,0.6,{LISTED},1 1,{RUNS},1 1,4,4",
            f"{names[2]},0.71,0.9,{PRINTED},1 1,{RUNS},1 1,4,4"]  # fmt: skip
    write_table(root, "Padchest", "ImageID", rows, columns=columns)
    module = CheXmask(str(root), images=str(images), source="Padchest")
    index = check_release(module)
    assert index["origin"].tolist() == [f"padchest:{names[2]}"]
    assert index["mask/left lung"].tolist() == [RUNS]
    assert index["patient_id"].isna().all()
    assert index["origin_patient"].isna().all()
    write_text(
        images / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
        f",ImageID,PatientID\n0,{names[2]},839860488694292331637988235681460987\n",
    )
    index = CheXmask(str(root), images=str(images), source="Padchest").index
    assert index["patient_id"].tolist() == ["839860488694292331637988235681460987"]


def test_masks_of_mimic(root, tmp_path_factory):
    images = write_mimic(tmp_path_factory.mktemp("mimic"))
    write_table(root, "MIMIC-CXR-JPG", "dicom_id", [row(FRONTAL), row(BLANK), row("0" * 44)])
    module = CheXmask(str(root), images=str(images), source="MIMIC-CXR-JPG")
    with pytest.warns(UserWarning, match="1 of 3 images are not there"):
        index = check_release(module)
    assert index["origin"].tolist() == [f"mimic:{FRONTAL}", f"mimic:{BLANK}"]
    assert index["view_position"].tolist() == ["AP", "PA"]
    assert index["patient_id"].tolist() == ["10000032"] * 2


def test_masks_of_chexpert(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("chexpert")
    name = "train/patient00001/study1/view1_frontal"
    write_image(images / f"{name}.png")
    write_table(root, "CheXpert", "Path", [row(f"{name}.jpg")])
    index = check_release(CheXmask(str(root), images=str(images), source="CheXpert"))
    assert index["origin"].tolist() == ["chexpert:patient00001/study1/view1_frontal"]
    assert index["patient_id"].tolist() == ["patient00001"]


def test_masks_of_vindr_and_candid(root, tmp_path_factory):
    images = tmp_path_factory.mktemp("dicom")
    name, uid = "9a5094b2563a1ef3ff50dc5c7ff71345", "1.2.276.0.7230010.3.1.4.8323329.1"
    write_dicom(images / f"train/{name}.dicom")
    write_dicom(images / f"dataset/{uid}")
    write_table(root, "VinDr-CXR", "image_id", [row(name)])
    write_table(root, "CANDID-PTX", "ImageID", [row(f"{uid}.jpg")])
    index = check_release(CheXmask(str(root), images=str(images), source="VinDr-CXR"))
    assert index["origin"].tolist() == [f"vindr:{name}"]
    index = check_release(CheXmask(str(root), images=str(images), source="CANDID-PTX"))
    assert index["origin"].tolist() == [f"candid:{uid}"]
    reports = images / "Pneumothorax_reports.csv"
    write_text(reports, f"SOPInstanceUID,EncodedPixels,Report,filename\n{uid},-1,,P0001_1_1\n")
    index = CheXmask(str(root), images=str(images), source="CANDID-PTX").index
    assert index["patient_id"].tolist() == ["P0001"]


def test_repeated_rows_and_missing_images(root, images):
    rows = [row(NIH[0]), row(NIH[0], left="1 1"), row("00000009_000.png")]
    write_table(root, "ChestX-Ray8", "Image Index", rows)
    with pytest.warns(UserWarning, match="1 of 2 images are not there"):
        index = CheXmask(str(root), images=str(images)).index
    assert index["mask/left lung"].tolist() == [RUNS]


def test_what_is_no_such_release(root, images):
    with pytest.raises(InputError, match=r"it has no OriginalResolution/CheXpert.csv"):
        CheXmask(str(root), images=str(images), source="CheXpert").make_index()
    with pytest.raises(InputError, match=r"source must be one of ChestX-Ray8, .*, got 'NIH'"):
        CheXmask(str(root), source="NIH")
    write_table(root, "ChestX-Ray8", "Image Index", [row(NIH[0]), row(NIH[1], height="x")])
    with pytest.raises(InputError, match=r"Height and Width are \['x', '4'\] in row 2"):
        CheXmask(str(root), images=str(images)).make_index()
    write_table(root, "ChestX-Ray8", "image", [row(NIH[0])])
    with pytest.raises(InputError, match="has no column 'Image Index'"):
        CheXmask(str(root), images=str(images)).make_index()

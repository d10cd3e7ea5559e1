import csv

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrssl.data.image import read_image
from cxrssl.data.phantom import Phantom
from cxrssl.data.polarity import InvertedImages, looks_inverted
from cxrssl.errors import InputError
from tests.data.stand_ins import Recorder, data_module, quiet_trainer
from tests.golden import SHARED


def chest(size=64):
    """Return a sketch (H, W) of a chest: bright spine, grey body, dark lungs and corners."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    pixels = np.where(np.hypot(rows - 0.6, columns - 0.5) < 0.55, 150, 10)
    for side in (0.28, 0.72):
        pixels[np.hypot((rows - 0.45) / 0.3, (columns - side) / 0.13) < 1] = 60
    pixels[:, int(0.42 * size) : int(0.58 * size)] = 220
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("size", [28, 64, 301])
def test_a_chest_and_its_inverse(size):
    assert not looks_inverted(chest(size))
    assert looks_inverted(255 - chest(size))


def test_grey_levels_do_not_matter():
    for low, gain in ((0, 0.1), (100, 0.5), (200, 0.2)):
        pixels = low + gain * chest()
        assert not looks_inverted(pixels)
        assert looks_inverted(255 - pixels)
        assert looks_inverted((1 - pixels / 255).astype(np.float32))


def test_in_doubt_an_image_is_right():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    for pixels in (
        np.zeros((9, 9), np.uint8),
        np.full((40, 50), 200, np.uint8),
        noise,
        255 - noise,
    ):
        assert not looks_inverted(pixels)


def test_never_both():
    rng = np.random.default_rng(1)
    for _ in range(200):
        pixels = cv2.resize(rng.integers(0, 256, (5, 5)).astype(np.uint8), (40, 40))
        assert not (looks_inverted(pixels) and looks_inverted(255 - pixels))


def test_phantoms():
    phantom = Phantom(96, 0)
    drawn = [phantom.pixels(number) for number in range(40)]
    assert not any(map(looks_inverted, drawn))
    assert all(looks_inverted(255 - pixels) for pixels in drawn)


def index(folder, inverted=(1, 4, 9), n=10):
    paths = []
    for number in range(n):
        pixels = chest() // 2 + number
        paths.append(str(folder / f"{number}.png"))
        cv2.imwrite(paths[-1], 255 - pixels if number in inverted else pixels)
    frame = pd.DataFrame({"path": paths, "split": ["train"] * 6 + ["val"] * 2 + ["test"] * 2})
    frame.to_csv(folder / "index.csv", index=False)
    return str(folder / "index.csv")


def first_pixels(model):
    """Return the first pixel that a recorder has seen of each image."""
    batches = [zip(numbers, views, strict=True) for _, (numbers, views, _) in model.shown]
    return {number: view[0] for batch in batches for number, view in batch}


@pytest.mark.parametrize("workers", [0, 2])
def test_checked_images_are_turned_and_named_once(tmp_path, workers):
    module = data_module(index(tmp_path), polarity="check", num_workers=workers, batch_size=2)
    model = Recorder()
    with pytest.warns(UserWarning, match="looked inverted") as warned:
        quiet_trainer(max_epochs=2, limit_val_batches=1.0).fit(model, module)
    seen = first_pixels(model)
    assert seen == {number: 5 + number for number in range(6)}
    (message,) = [str(each.message) for each in warned if "inverted" in str(each.message)]
    assert message.splitlines() == [
        "2 of 10 images looked inverted and were turned:",
        *(str(tmp_path / f"{number}.png") for number in (1, 4)),
    ]


def test_stored_images_are_taken_as_they_are(tmp_path):
    module = data_module(index(tmp_path), batch_size=2)
    model = Recorder()
    quiet_trainer(max_epochs=1).fit(model, module)
    seen = first_pixels(model)
    assert [seen[number] for number in range(6)] == [5, 249, 7, 8, 246, 10]


def test_source_says_the_same_of_stored_and_shown_images(tmp_path):
    module = data_module(index(tmp_path), polarity="check")
    rows = module.rows("test")
    stored, shown = module.make_source(rows), module.shown_source(rows)
    assert len(shown) == len(stored) == 2
    assert shown.name(1) == stored.name(1)
    np.testing.assert_array_equal(shown[0], stored[0])
    np.testing.assert_array_equal(shown[1], 255 - stored[1])
    with pytest.warns(UserWarning, match=r"1 of 10 images .*\n.*9\.png$"):
        module._inverted.report(module.index["path"].tolist())
    module._inverted.report(module.index["path"].tolist())  # once


def test_long_lists_are_cut():
    inverted = InvertedImages(30)
    for place in range(25):
        inverted.turn(255 - chest(), place)
    with pytest.warns(UserWarning, match=r"^25 of 30 images (.*\n){21}and 5 more$"):
        inverted.report([f"{place}.png" for place in range(30)])


def test_unknown_polarity(tmp_path):
    with pytest.raises(InputError, match="polarity must be stored or check, got guess"):
        data_module(index(tmp_path), polarity="guess")


def shared_images(name, step):
    manifest = SHARED / "data" / name / "manifest.csv"
    if not manifest.exists():
        pytest.skip(f"the shared images {name} are not beside this checkout")
    with manifest.open(newline="") as file:
        for row in list(csv.DictReader(file))[::step]:
            yield read_image(SHARED / "data" / row["path"]).pixels


@pytest.mark.parametrize(
    ("name", "step", "least"), [("nih512", 20, 0.95), ("nih64", 10, 0.98), ("hannover512", 6, 0.8)]
)
def test_real_images(name, step, least):
    images = list(shared_images(name, step))
    assert not any(map(looks_inverted, images))
    assert np.mean([looks_inverted(255 - pixels) for pixels in images]) >= least


def test_false_photometric_tag():
    folder = SHARED / "data" / "dicom" / "original"
    if not folder.exists():
        pytest.skip("the shared DICOM files are not beside this checkout")
    assert not looks_inverted(read_image(folder / "siim_chest_jpeg_baseline.dcm").pixels)
    assert looks_inverted(read_image(folder / "siim_chest_fake_monochrome1.dcm").pixels)

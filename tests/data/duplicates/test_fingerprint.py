import builtins

import imagehash
import numpy as np
import pytest
from PIL import Image

from cxrssl.data.duplicates import LOOKS, fingerprint
from cxrssl.data.duplicates.fingerprint import _imagehash, thumbnail
from cxrssl.errors import InputError
from tests.data.duplicates.pictures import picture


def test_a_square_has_one_face_and_others_have_two():
    assert len(fingerprint(picture(shape=(64, 64))).thumbnails) == 32 * 32
    found = fingerprint(picture(shape=(96, 80)))
    assert len(found.thumbnails) == 2 * 32 * 32
    assert len(found.hashes) == 2 * 8 * len(LOOKS)


def test_hashes_are_those_of_the_library_for_each_look():
    found = fingerprint(picture())
    face = np.frombuffer(found.thumbnails, np.uint8)[: 32 * 32].reshape(32, 32)
    looks = (face, face[:, ::-1], 255 - face, 255 - face[:, ::-1])
    for number, look in enumerate(looks):
        expected = imagehash.phash(Image.fromarray(np.ascontiguousarray(look)))
        assert found.hashes[8 * number : 8 * number + 8].hex() == str(expected)


def test_depth_and_range_of_grey_values_do_not_matter_to_the_exact_hash():
    grey = picture().astype(np.int32)
    grey = ((grey - grey.min()) * 255 // np.ptp(grey)).astype(np.uint8)
    same = fingerprint(grey).exact
    assert fingerprint(grey.astype(np.uint16) * 257).exact == same
    assert fingerprint(grey.astype(np.float32) / 510 + 0.25).exact == same
    changed = grey.copy()
    changed[40:44, 40:44] ^= 255
    assert fingerprint(changed).exact != same


def test_thumbnails_are_ranks_that_no_rising_curve_moves():
    grey = np.random.default_rng(0).permutation(32 * 32).reshape(32, 32).astype(np.float32)
    expected = (255 * grey / 1023).round().astype(np.uint8)
    np.testing.assert_array_equal(thumbnail(grey), expected)
    np.testing.assert_array_equal(thumbnail((grey / 1023) ** 3), expected)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_nothing_on_an_image_is_blank(value):
    assert fingerprint(np.full((50, 40), value, np.uint8)).blank
    spot = np.full((256, 256), value, np.uint8)
    spot[3, 3] ^= 255
    assert fingerprint(spot).blank
    assert not fingerprint(picture()).blank


def test_one_pixel_and_a_line_have_fingerprints():
    for shape in ((1, 1), (1, 300), (300, 1)):
        assert fingerprint(np.zeros(shape, np.uint8)).blank


def test_a_missing_library_is_named(monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name == "imagehash":
            raise ImportError(name)
        return whole(name, *rest)

    _imagehash.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'cxrssl\[check\]'"):
        fingerprint(picture())

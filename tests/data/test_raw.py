import numpy as np
import pytest

from cxrssl.data.image import ImageReadError, is_image_file, read_image

SIDE = 2048


def raw(top_left=0, rest=4095):
    """Return the bytes of a raw image whose top left quarter differs."""
    stored = np.full((SIDE, SIDE), rest, ">u2")
    stored[: SIDE // 2, : SIDE // 2] = top_left
    return stored.tobytes()


def test_raw_images_are_big_endian_twelve_bits_and_inverted(tmp_path):
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(raw(top_left=0x0123))
    image = read_image(path)
    assert (image.pixels.shape, image.pixels.dtype, image.bits) == ((SIDE, SIDE), np.uint8, 12)
    assert image.pixels[0, 0] == round((4095 - 0x0123) / 4095 * 255)
    assert not image.pixels[SIDE // 2 :].any()
    fine = read_image(path, depth="float32").pixels
    np.testing.assert_allclose(fine[0, 0], (4095 - 0x0123) / 4095, atol=1e-7)
    with pytest.raises(ImageReadError, match="no frame 1"):
        read_image(path, frame=1)


def test_suffix_and_size_tell(tmp_path):
    content = raw()
    for name, data, taken in (
        ("a.img", content, True),
        ("a.IMG", content[:-2], False),
        ("a.bin", content, False),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_image_file(tmp_path / name) == taken
        if not taken:
            with pytest.raises(ImageReadError, match="its content is none of DICOM"):
                read_image(tmp_path / name)
    assert not is_image_file(tmp_path / "missing.img")


def test_samples_beyond_twelve_bits_are_refused(tmp_path):
    (tmp_path / "a.IMG").write_bytes(raw(top_left=4096))
    with pytest.raises(ImageReadError, match="samples up to 4096, beyond 12 bits"):
        read_image(tmp_path / "a.IMG")

import os
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest

from cxrssl.data import archive
from cxrssl.data import image as door
from cxrssl.data.image import (
    IMAGE_SUFFIXES,
    ImageReadError,
    Radiograph,
    is_image_file,
    read_image,
)
from cxrssl.errors import InputError

GREY8 = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
GREY16 = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
STRIP = struct.pack("<HHII", 273, 4, 1, 8)  # the directory's entry of where the pixels start


def save(path, pixels, *options):
    assert cv2.imwrite(str(path), pixels, options)
    return path


def photograph(shape=(60, 80), dtype=np.uint8, seed=0):
    """Return a smooth image that uses the whole range of its type."""
    noise = np.random.default_rng(seed).normal(size=(8, 8)).astype(np.float32)
    smooth = cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)
    unit = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return (unit * np.iinfo(dtype).max).astype(dtype)


def tiff(pixels, photometric=1, bits=None, tags=(), order="<", sample_format=1):
    """Return an uncompressed TIFF file of one or more pages (H, W) or (H, W, samples)."""
    body = b"II" if order == "<" else b"MM"
    body += struct.pack(order + "HI", 42, 0)
    link = 4  # where the offset of the next directory is to be written
    for page in pixels if isinstance(pixels, list) else [pixels]:
        samples = 1 if page.ndim == 2 else page.shape[2]
        data = page.astype(page.dtype.newbyteorder(order)).tobytes()
        start, body = len(body), body + data
        widths = struct.pack(f"{order}{samples}H", *[bits or 8 * page.dtype.itemsize] * samples)
        entries = [
            *((256, "I", page.shape[1]), (257, "I", page.shape[0]), (258, "H", widths)),
            *((259, "H", 1), (262, "H", photometric), (273, "I", start), (277, "H", samples)),
            *((278, "I", page.shape[0]), (279, "I", len(data)), (339, "H", sample_format), *tags),
        ]
        directory = len(body)
        values = directory + 6 + 12 * len(entries)
        table, blob = struct.pack(order + "H", len(entries)), b""
        for tag, kind, value in sorted(entries):
            raw = value if isinstance(value, bytes) else struct.pack(order + kind, value)
            number = len(raw) // struct.calcsize(kind)
            table += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], number)
            if len(raw) <= 4:
                table += raw.ljust(4, b"\0")
            else:
                table += struct.pack(order + "I", values + len(blob))
                blob += raw
        body = body[:link] + struct.pack(order + "I", directory) + body[link + 4 :]
        link = directory + len(table)
        body += table + bytes(4) + blob
    return body


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(width, height, bits, colour, rows, *chunks):
    """Return a PNG file from its raw rows, for kinds that OpenCV does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", content), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def write(path, content):
    path.write_bytes(content)
    return path


# Containers


def test_result_carries_pixels_depth_and_source(tmp_path):
    path = save(tmp_path / "a.png", GREY8)
    image = read_image(path)
    assert isinstance(image, Radiograph)
    assert (image.bits, image.source) == (8, str(path))
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, GREY8)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_grey_in_both_depths(tmp_path, suffix, dtype):
    stored = photograph(dtype=dtype)
    path = save(tmp_path / f"a.{suffix}", stored)
    white = np.iinfo(dtype).max
    image = read_image(path)
    assert image.bits == 8 * stored.dtype.itemsize
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, np.rint(stored / white * 255))
    fine = read_image(path, depth="float32").pixels
    assert fine.dtype == np.float32
    np.testing.assert_allclose(fine, stored / white, atol=1e-7)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    # 257 stored levels make one displayed level: 128 of 257 rounds down, 129 up.
    stored = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    path = save(tmp_path / "a.png", stored)
    np.testing.assert_array_equal(read_image(path).pixels, [[0, 0, 1, 1, 128, 255]])


def test_float_depth_keeps_more_than_256_levels(tmp_path):
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    fine = read_image(save(tmp_path / "a.png", stored), depth="float32").pixels
    assert len(np.unique(fine)) == 4096


def test_jpeg(tmp_path):
    stored = photograph()
    pixels = read_image(save(tmp_path / "a.jpg", stored, cv2.IMWRITE_JPEG_QUALITY, 98)).pixels
    assert np.abs(pixels.astype(int) - stored).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_equal_channels_give_exactly_their_value(tmp_path, suffix, dtype, channels):
    stored = photograph(dtype=dtype)
    colour = np.stack([stored] * channels, -1)
    colour[..., 3:] = np.iinfo(dtype).max
    pixels = read_image(save(tmp_path / f"a.{suffix}", colour), depth="float32").pixels
    np.testing.assert_allclose(pixels, stored / np.iinfo(dtype).max, atol=1e-7)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_becomes_luma_and_alpha_is_dropped(tmp_path, suffix, dtype):
    white = np.iinfo(dtype).max
    bgra = np.zeros((1, 4, 4), dtype)
    bgra[0, 0, 2] = bgra[0, 1, 1] = bgra[0, 2, 0] = white  # red, green, blue, black
    bgra[..., 3] = [0, white // 3, white, 0]
    expected = [[0.299, 0.587, 0.114, 0]]
    for stored in (bgra, bgra[..., :3]):
        pixels = read_image(save(tmp_path / f"a.{suffix}", stored), depth="float32").pixels
        np.testing.assert_allclose(pixels, expected, atol=0.5 / 255)


def test_content_decides_the_container(tmp_path):
    path = save(tmp_path / "a.png", GREY8).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(path).pixels, GREY8)


# PNG and JPEG in particular


def test_palette_png(tmp_path):
    palette = bytes([0, 0, 0, 90, 90, 90, 255, 255, 255, 255, 0, 0])
    rows = [bytes([0, 1, 2, 3])] * 2
    path = write(tmp_path / "a.png", png(4, 2, 8, 3, rows, (b"PLTE", palette)))
    np.testing.assert_array_equal(read_image(path).pixels, [[0, 90, 255, 76]] * 2)
    path = write(
        tmp_path / "b.png", png(4, 2, 8, 3, rows, (b"PLTE", palette), (b"tRNS", bytes([0, 9])))
    )
    np.testing.assert_array_equal(read_image(path).pixels, [[0, 90, 255, 76]] * 2)


def test_png_of_one_bit_and_with_grey_and_alpha(tmp_path):
    path = write(tmp_path / "a.png", png(8, 1, 1, 0, [b"\xa5"]))
    np.testing.assert_array_equal(read_image(path).pixels, [[255, 0, 255, 0, 0, 255, 0, 255]])
    path = write(tmp_path / "b.png", png(2, 1, 8, 4, [bytes([10, 0, 200, 255])]))
    np.testing.assert_array_equal(read_image(path).pixels, [[10, 200]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored(tmp_path, orientation):
    path = save(tmp_path / "a.jpg", photograph())
    plain = read_image(path).pixels
    tags = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 274, 3, 1, orientation, 0, 0)
    content = path.read_bytes()
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(tags) + 2) + tags + content[2:]
    assert content != path.read_bytes()
    np.testing.assert_array_equal(read_image(write(path, content)).pixels, plain)


# TIFF in particular


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("stored", [GREY8, GREY16], ids=["8", "16"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiff_with_white_as_zero_is_inverted(tmp_path, order, stored, photometric):
    path = write(tmp_path / "a.tif", tiff(stored, photometric, order=order))
    white = np.iinfo(stored.dtype).max
    expected = stored / white if photometric else 1 - stored / white
    np.testing.assert_allclose(read_image(path, depth="float32").pixels, expected, atol=1e-6)


def test_palette_tiff(tmp_path):
    inverse = np.arange(256)[::-1] * 257
    table = np.concatenate([inverse] * 3).astype("<u2").tobytes()
    path = write(tmp_path / "a.tif", tiff(GREY8, 3, tags=[(320, "H", table)]))
    np.testing.assert_array_equal(read_image(path).pixels, 255 - GREY8)


@pytest.mark.parametrize("stored", [GREY8, GREY16], ids=["8", "16"])
def test_tiff_orientation_is_ignored(tmp_path, stored):
    path = write(tmp_path / "a.tif", tiff(stored, tags=[(274, "H", 6)]))
    white = np.iinfo(stored.dtype).max
    np.testing.assert_allclose(read_image(path, depth="float32").pixels, stored / white, atol=1e-6)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_tiff_alpha_does_not_darken(tmp_path, kind):
    rgba = np.stack([GREY8] * 3 + [GREY8[::-1]], -1)
    path = write(tmp_path / "a.tif", tiff(rgba, 2, tags=[(338, "H", kind)]))
    np.testing.assert_array_equal(read_image(path).pixels, GREY8)


def test_tiff_pages_are_frames_and_thumbnails_are_none(tmp_path):
    path = write(tmp_path / "a.tif", tiff([GREY8, GREY8 + 5]))
    with pytest.raises(ImageReadError, match="it holds 2 frames; say which with frame=0"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path, frame=0).pixels, GREY8)
    np.testing.assert_array_equal(read_image(path, frame=1).pixels, GREY8 + 5)
    with pytest.raises(ImageReadError, match="it has no frame 2; it holds 2"):
        read_image(path, frame=2)
    path = write(tmp_path / "b.tif", tiff([GREY8], tags=[(254, "I", 1)]))
    with pytest.raises(ImageReadError, match="directory lists no image"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (tiff(GREY16.astype(np.float32), sample_format=3), "samples have 32 other bits"),
        (tiff(GREY16.astype(np.uint32)), "samples have 32 unsigned bits; save it with 8 or 16"),
        (tiff(GREY16.astype(np.int16), sample_format=2), "samples have 16 other bits"),
        (tiff(GREY8, bits=4), "samples have 4 unsigned bits"),
        (tiff(np.stack([GREY16] * 2, -1), tags=[(338, "H", 2)]), "16-bit TIFF samples are neither"),
        (tiff(GREY8)[:-30], "TIFF directory is damaged or cut short"),
        (tiff(GREY8).replace(STRIP, STRIP[:-4] + b"\xff\xff\0\0"), "TIFF content is cut short"),
        (b"II+\0" + bytes(100), "it is a BigTIFF file"),
    ],
)  # fmt: skip
def test_refused_tiff(tmp_path, content, cause):
    with pytest.raises(ImageReadError, match=cause):
        read_image(write(tmp_path / "a.tif", content))


def test_circular_tiff_directories_end(tmp_path):
    content = bytearray(tiff(GREY8))
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    struct.pack_into("<I", content, directory + 2 + 12 * entries, directory)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.tif", content)).pixels, GREY8)


# Archives


@pytest.mark.parametrize("save_array", [np.savez, np.savez_compressed])
def test_row_of_an_archive(tmp_path, save_array):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 7), np.uint8)
    save_array(tmp_path / "a.npz", images=images, val_images=images[::-1], labels=np.zeros(5))
    for row in (0, 4):
        image = read_image(f"{tmp_path}/a.npz#{row}")
        np.testing.assert_array_equal(image.pixels, images[row])
        assert (image.bits, image.source) == (8, f"{tmp_path}/a.npz#{row}")
    np.testing.assert_array_equal(read_image(tmp_path / "a.npz#val_images" / "1").pixels, images[3])
    fine = read_image(tmp_path / "a.npz#2", depth="float32").pixels
    np.testing.assert_allclose(fine, images[2] / 255, atol=1e-7)


def test_archive_is_opened_once_and_again_when_it_changes(tmp_path, monkeypatch):
    opened = []
    original = archive.zipfile.ZipFile
    monkeypatch.setattr(
        archive.zipfile,
        "ZipFile",
        lambda *args, **options: opened.append(args) or original(*args, **options),
    )
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((3, 2, 2), np.uint8))
    opened.clear()
    first = read_image(f"{path}#0").pixels
    first += 1  # must not reach the next reader
    for row in (0, 1, 2, 0):
        assert not read_image(f"{path}#{row}").pixels.any()
    assert len(opened) == 1
    np.savez(path, images=np.full((4, 2, 2), 7, np.uint8))
    assert (read_image(f"{path}#3").pixels == 7).all()


@pytest.mark.parametrize(
    ("arrays", "fragment", "cause"),
    [
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "#2", "has 2 rows, numbered from 0"),
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "#-1", "'#-1' names no row"),
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "#", "'#' names no row"),
        ({"images": np.zeros((2, 3, 3), np.uint8)}, "", r"name the row .* file.npz#0"),
        ({"other": np.zeros((2, 3, 3), np.uint8)}, "#0", r"no array 'images'.*other"),
        ({"images": np.zeros((2, 3, 3))}, "#0", "float64 of shape"),
        ({"images": np.zeros((2, 3, 3, 3), np.uint8)}, "#0", r"not uint8 of \(N, H, W\)"),
        ({"images": np.array([{}, {}])}, "#0", "object of shape"),
        ({"images": np.zeros((2, 0, 3), np.uint8)}, "#0", "claims 3 x 0 pixels"),
    ],
)
def test_refused_archive(tmp_path, arrays, fragment, cause):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ImageReadError, match=cause):
        read_image(f"{tmp_path}/a.npz{fragment}")


def test_archive_that_claims_more_than_it_holds(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=np.zeros((2, 3, 3), np.uint8))
    content = path.read_bytes().replace(b"(2, 3, 3)", b"(9, 3, 3)")
    assert content != path.read_bytes()
    for damaged in (content, path.read_bytes()[:-40], b"PK\x03\x04"):
        with pytest.raises(ImageReadError, match=r"archive is damaged|claims"):
            read_image(f"{write(tmp_path / 'b.npz', damaged)}#0")


# Whatever else a path may lead to


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "it has 0 bytes"),
        (b"not an image at all", "its content is none of DICOM, PNG, JPEG, TIFF"),
        (b"GIF89a" + bytes(50), "it is a GIF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x89PNG\r\n\x1a\n", "its PNG header is damaged"),
        (b"\xff\xd8\xff", "its JPEG header is damaged"),
        (b"II*\0", "its TIFF directory is damaged"),
        (png(0, 5, 8, 0, []), "claims 0 x 5 pixels"),
        (png(100_000, 100_000, 8, 0, []), "claims 100000 x 100000 pixels; from 1 to 67108864"),
        (png(20, 20, 8, 0, []), "its PNG content is damaged"),
        (b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\0\0\0", "claims 65535 x 65535"),
    ],
)
def test_content_that_is_no_image(tmp_path, content, cause):
    path = write(tmp_path / "a.png", content)
    with pytest.raises(ImageReadError, match=cause) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert caught.value.cause in str(caught.value)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(ImageReadError, match="No such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(ImageReadError, match="No such file"):
        read_image(tmp_path / "missing.npz#0")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, os.devnull, tmp_path / "pipe"):
        with pytest.raises(ImageReadError, match="not a regular file"):
            read_image(path)
        assert not is_image_file(path)
    with pytest.raises(ImageReadError, match="ValueError"):
        read_image("a\0b.png")


def test_frame_of_a_single_image(tmp_path):
    path = save(tmp_path / "a.png", GREY8)
    np.testing.assert_array_equal(read_image(path, frame=0).pixels, GREY8)
    for frame in (1, -1):
        with pytest.raises(ImageReadError, match=f"it has no frame {frame}; it holds 1"):
            read_image(path, frame=frame)


def test_unknown_depth():
    with pytest.raises(InputError, match="depth must be one of uint8, float32, got 'uint16'"):
        read_image("a.png", depth="uint16")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_truncated_files_are_errors(tmp_path, suffix):
    content = save(tmp_path / f"a.{suffix}", photograph()).read_bytes()
    for share in (0.02, 0.3, 0.5, 0.7, 0.9, 0.99):
        with pytest.raises(ImageReadError, match=r"damaged|cut short"):
            read_image(write(tmp_path / "b", content[: int(share * len(content))]))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_flipped_bits_end_in_an_image_or_the_error(tmp_path, suffix, dtype):
    if suffix == "jpg" and dtype == np.uint16:
        dtype = np.uint8
    content = save(tmp_path / f"a.{suffix}", photograph(dtype=dtype)).read_bytes()
    rng = np.random.default_rng(7)
    for trial in range(60):
        damaged = bytearray(content)
        # A third of the damage hits the ends, where the headers are.
        reach = min(len(content), 200) if trial % 3 == 0 else len(content)
        for position in rng.integers(0, reach, rng.integers(1, 5)):
            damaged[position if trial % 2 else -1 - position] ^= 1 << rng.integers(8)
        try:
            pixels = read_image(write(tmp_path / "b", damaged)).pixels
        except ImageReadError:
            continue
        assert pixels.ndim == 2
        assert pixels.dtype == np.uint8
        assert 0 < pixels.size <= 2**26


class Panic(BaseException):
    pass


def test_only_interruption_and_installation_pass_the_door(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", GREY8)

    def fail(error):
        def decode(*_):
            raise error

        monkeypatch.setattr(door.cv2, "imdecode", decode)

    for error in (cv2.error("x"), MemoryError(), RecursionError(), Panic("x")):
        fail(error)
        with pytest.raises(ImageReadError, match=r"damaged|failed with") as caught:
            read_image(path)
        assert caught.value.__context__ is None
    for error in (KeyboardInterrupt, SystemExit, ImportError):
        fail(error())
        with pytest.raises(error):
            read_image(path)


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageReadError("a.png", "it is blue")))
    assert (error.path, error.cause) == ("a.png", "it is blue")
    assert str(error) == "cannot read the image a.png: it is blue"
    assert isinstance(error, InputError)


def test_files_of_a_folder_scan(tmp_path):
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    assert is_image_file("anywhere/a.PNG")
    assert is_image_file(write(tmp_path / "1.2.840.1", bytes(128) + b"DICM"))
    assert not is_image_file(write(tmp_path / "notes", b"DICM"))
    assert not is_image_file(tmp_path)
    assert not is_image_file(tmp_path / "missing")

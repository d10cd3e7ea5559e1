import struct

import cv2
import numpy as np
import pytest

from cxrssl.data.jpeg_stream import is_whole_jpeg
from tests.data.dicom_files import smooth


def encode(restart=0, colour=False):
    pixels = smooth(np.uint8, 8)
    pixels = np.stack([pixels, pixels // 2, 255 - pixels], axis=-1) if colour else pixels
    options = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def segment(code, content):
    return bytes([0xFF, code]) + struct.pack(">H", len(content) + 2) + content


TABLE = bytes([0, 1, 1, *[0] * 14]) + bytes([0, 9])
FRAME = bytes([12]) + struct.pack(">HH", 2, 2) + bytes([1, 1, 0x11, 0])
SCAN = bytes([1, 1, 0x00, 1, 0, 0])
DATA = b"\x12\xff\x00\x34"


def lossless(table=TABLE, frame=FRAME, scan=SCAN, data=DATA, end=b"\xff\xd9"):
    """Return a lossless stream whose parts can be chosen."""
    segments = segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, scan)
    return b"\xff\xd8" + segments + data + end


@pytest.mark.parametrize("restart", [0, 2])
@pytest.mark.parametrize("colour", [False, True])
def test_streams_of_an_encoder(restart, colour):
    stream = encode(restart, colour)
    assert is_whole_jpeg(stream)
    assert is_whole_jpeg(stream + b"\0")


def test_cut_streams_are_not_whole():
    stream = encode(restart=2)
    assert not any(is_whole_jpeg(stream[:length]) for length in range(len(stream)))


def test_lossless_streams():
    assert is_whole_jpeg(lossless())
    assert is_whole_jpeg(lossless(data=b""))
    assert is_whole_jpeg(lossless(table=TABLE + bytes([1]) + TABLE[1:]))
    assert is_whole_jpeg(lossless().replace(b"\xff\xda", segment(0xFE, b"hello") + b"\xff\xff\xda"))
    two_scans = DATA + segment(0xDA, SCAN) + DATA
    assert is_whole_jpeg(lossless(data=two_scans))


@pytest.mark.parametrize(
    "parts",
    [
        {"table": b""},
        {"table": TABLE[:-1]},
        {"table": TABLE + b"\0"},
        {"table": bytes([4]) + TABLE[1:]},  # number
        {"table": bytes([0x20]) + TABLE[1:]},  # class
        {"table": bytes([1]) + TABLE[1:]},  # not the one that the scan wants
        {"table": bytes([0, 3, *[0] * 15, 1, 2, 3])},  # three codes of one bit
        {"table": TABLE[:-1] + bytes([17])},  # more bits than a sample has
        {"frame": FRAME[:-1]},
        {"frame": FRAME[:7] + b"\x01" + FRAME[8:]},  # sampling
        {"frame": FRAME[:5] + b"\x02" + FRAME[6:]},
        {"scan": SCAN[:-1]},
        {"scan": bytes([1, 2, 0, 1, 0, 0])},  # component
        {"scan": bytes([0, 1, 0, 0])},
        {"scan": bytes([1, 1, 0, 0, 0, 0])},  # predictor
        {"scan": bytes([1, 1, 0, 8, 0, 0])},
        {"scan": bytes([1, 1, 0, 1, 0, 12])},  # point transform
        {"data": b"\x12\xff\xc3\x34"},
        {"data": DATA + segment(0xC3, FRAME)},  # a second frame
        {"data": DATA + segment(0xDD, b"\0")},
        {"data": DATA + segment(0xDB, b"\0")},
        {"data": DATA + segment(0xCC, b"\0")},
        {"end": b""},
        {"end": b"\xff"},
    ],
)
def test_impossible_streams(parts):
    assert not is_whole_jpeg(lossless(**parts))


def test_segments_in_the_wrong_order():
    stream = lossless()
    frame, table = segment(0xC3, FRAME), segment(0xC4, TABLE)
    assert is_whole_jpeg(stream.replace(frame + table, table + frame))
    scan = segment(0xDA, SCAN)
    assert not is_whole_jpeg(stream.replace(frame, b""))
    assert not is_whole_jpeg(stream.replace(scan + DATA, b""))
    assert not is_whole_jpeg(stream.replace(table + scan + DATA, scan + DATA + table))
    assert not is_whole_jpeg(b"\xff\xd8\xff\xd9")


def test_no_damage_of_any_byte_raises():
    stream = encode()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(stream), 2000):
        damaged = bytearray(stream)
        damaged[at] ^= rng.integers(1, 256)
        is_whole_jpeg(bytes(damaged))

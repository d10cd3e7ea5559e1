"""The frame header of JPEG streams, in files of their own or within DICOM."""

import struct
from typing import NamedTuple

__all__ = ["JpegFrame", "jpeg_frame"]


class JpegFrame(NamedTuple):
    """What a frame header claims.

    Attributes:
        width: Columns.
        height: Rows; 0 where they are given after the pixels.
        precision: Bits of a sample.
        samples: Samples of a pixel.
    """

    width: int
    height: int
    precision: int
    samples: int


def jpeg_frame(data: bytes, *, strict: bool = False) -> JpegFrame | None:
    """Return what the frame header of a JPEG or JPEG-LS stream claims, None without a header.

    Args:
        data: The stream.
        strict: Whether stray bytes between its segments, which most decoders skip, count as damage.
    """
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if not 0 <= at <= len(data) - 10:
            return None
        code = data[at + 1]
        if data[at] != 0xFF:
            if strict:
                return None
            at = data.find(b"\xff", at)
        elif code in _FRAME_HEADERS:
            precision, height, width, samples = struct.unpack_from(">BHHB", data, at + 4)
            return JpegFrame(width, height, precision, samples)
        elif code == 0xDA:  # entropy-coded data follow
            return None
        else:
            at += _ALONE.get(code, 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


_MAX_SEGMENTS = 2**16  # fill bytes count as well: endless ones must end

# Markers without a segment: fill bytes, and restart, start of image and temporary markers.
_ALONE = {0xFF: 1} | dict.fromkeys((0x00, 0x01, *range(0xD0, 0xD9)), 2)
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}

"""The frame header of JPEG streams, in files of their own or within DICOM."""

import struct

__all__ = ["jpeg_frame"]


def jpeg_frame(data: bytes, *, strict: bool = False) -> tuple[int, int, int] | None:
    """Return (width, height, precision) as the frame header of a JPEG or JPEG-LS stream claims.

    Args:
        data: The stream.
        strict: Whether stray bytes between its segments, which most decoders skip, count as damage.
    """
    at = 2
    while 0 <= at <= len(data) - 10:
        code = data[at + 1]
        if data[at] != 0xFF:
            if strict:
                return None
            at = data.find(b"\xff", at)
        elif code in _JPEG_FRAME_HEADERS:
            precision, height, width = struct.unpack_from(">BHH", data, at + 4)
            return width, height, precision
        elif code == 0xDA:  # entropy-coded data follow
            return None
        else:
            at += _JPEG_ALONE.get(code, 2 + int.from_bytes(data[at + 2 : at + 4], "big"))
    return None


# Markers without a segment: fill bytes, and restart, start of image and temporary markers.
_JPEG_ALONE = {0xFF: 1} | dict.fromkeys((0x00, 0x01, *range(0xD0, 0xD9)), 2)
_JPEG_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}

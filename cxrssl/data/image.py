"""The one door through which image files are read, whatever their container."""

import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrssl.data.archive import read_row, split_row
from cxrssl.data.jpeg import jpeg_frame
from cxrssl.data.raw import RAW_BITS, RAW_SUFFIX, is_raw, read_raw
from cxrssl.data.reading import (
    MAX_BYTES,
    Depth,
    UnreadableError,
    check_frame,
    check_size,
    kind,
    scale,
)
from cxrssl.data.tiff import prepare_tiff
from cxrssl.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "ImageReadError", "Radiograph", "is_image_file", "read_image"]

IMAGE_SUFFIXES = frozenset({RAW_SUFFIX, ".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
"""Suffixes, in lower case, by which a folder scan knows an image; a raw one by its size too."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One image as it is displayed: a single channel, bones bright.

    Attributes:
        pixels: (H, W) uint8, or float32 in [0, 1].
        bits: Bit depth of the stored samples.
        source: The path it was read from, as given.
    """

    pixels: NDArray[Any]
    bits: int
    source: str


class ImageReadError(InputError):
    """An image file that cannot be read.

    Args:
        path: The file, as it was asked for.
        cause: What is wrong with it, without anything that identifies a patient.
    """

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"cannot read the image {path}: {cause}")
        self.path = path
        self.cause = cause

    def __reduce__(self) -> tuple[type["ImageReadError"], tuple[str, str]]:
        return type(self), (self.path, self.cause)  # errors travel between worker processes


def read_image(path: str | Path, *, depth: Depth = "uint8", frame: int | None = None) -> Radiograph:
    """Return the image of a DICOM, PNG, JPEG or TIFF file, or one row of an ``.npz`` archive.

    The content decides the container, not the suffix. Only the raw images of JSRT have nothing that
    tells: a ``.IMG`` of 8,388,608 bytes is read as 2,048 x 2,048 samples of 12 bits, big endian and
    inverted. Colour becomes luma (0.299 R + 0.587 G +
    0.114 B) and an alpha channel is dropped. Sixteen bits are scaled to the whole range and never
    clipped. Orientation tags (EXIF, TIFF) are ignored: the grid is the one that is stored, as in
    the masks and boxes that datasets publish with their files. DICOM is rendered as
    `cxrssl.data.dicom.read_dicom` says.

    Args:
        path: The file. ``file.npz#row`` is a row of the array ``images`` (N, H, W) uint8,
            ``file.npz#name/row`` one of the array ``name``.
        depth: ``float32`` keeps more than 256 grey levels, scaled to [0, 1].
        frame: Which image of a file that holds several, from 0.

    Raises:
        ImageReadError: Whenever no image comes out, whatever the reason.
        InputError: If the depth is unknown.
    """
    if depth not in get_args(Depth):
        raise InputError(f"depth must be one of {', '.join(get_args(Depth))}, got {depth!r}")
    source = os.fspath(path)
    try:
        pixels, bits = _read(source, depth, frame)
    except UnreadableError as error:
        cause = str(error)
    except OSError as error:
        cause = error.strerror or kind(error)
    except (KeyboardInterrupt, SystemExit, ImportError):
        raise  # a broken installation is not a broken file
    except BaseException as error:  # a panic in a compiled decoder is not an Exception
        cause = f"reading failed with {kind(error)}"
    else:
        return Radiograph(pixels, bits, source)
    # Raised out here, it carries no context: messages of other libraries may quote the header.
    raise ImageReadError(source, cause)


def is_image_file(path: str | Path) -> bool:
    """Tell whether a folder scan should take a file: by its suffix, or as DICOM by its content."""
    if Path(path).suffix.lower() in IMAGE_SUFFIXES - {RAW_SUFFIX}:
        return True
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return False
        if is_raw(path, status.st_size):
            return True
        with open(path, "rb") as file:
            return _has_preamble(file.read(132))
    except OSError:
        return False


_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}

_FOREIGN = {
    b"II+\0": "a BigTIFF file",
    b"MM\0+": "a BigTIFF file",
    b"GIF8": "a GIF file",
    b"BM": "a BMP file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\x1f\x8b": "a gzip file",
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for",
}

# Without the preamble a file starts with the first element of group 2 or 8: little endian with or
# without its value representation, or big endian with it.
_BARE_DICOM = re.compile(
    rb"[\x02\x08]\0..(?:UI|UL|CS|DA|TM|DT|SH|LO|OB|SQ|..\0\0)|\0\x08..(?:UI|UL|CS|DA|TM|DT|SH|LO|SQ)",
    re.DOTALL,
)


def _read(source: str, depth: Depth, frame: int | None) -> tuple[NDArray[Any], int]:
    """Return the pixels and the stored bit depth of a file or of a row of an archive."""
    if (named := split_row(source)) is not None:
        check_frame(frame, 1)
        return scale(read_row(*named), 8, depth), 8
    data = _read_bytes(source)
    if is_raw(source, len(data)):
        check_frame(frame, 1)
        return scale(read_raw(data), RAW_BITS, depth), RAW_BITS
    container = _container(data)
    if container == "DICOM":
        from cxrssl.data.dicom import read_dicom  # pydicom is slow to import

        return read_dicom(data, depth=depth, frame=frame)
    grey = _read_raster(data, container, frame)
    bits = 8 * grey.dtype.itemsize
    return scale(grey, bits, depth), bits


def _read_bytes(source: str) -> bytes:
    status = os.stat(source)
    if not stat.S_ISREG(status.st_mode):  # asked before opening, which may wait for a pipe's writer
        raise UnreadableError("it is a directory or another thing that is not a regular file")
    if not 0 < status.st_size <= MAX_BYTES:
        raise UnreadableError(f"it has {status.st_size} bytes; from 1 to {MAX_BYTES} are accepted")
    return Path(source).read_bytes()


def _container(data: bytes) -> str:
    """Return the container by its first bytes; DICOM first, whose preamble may mimic TIFF."""
    if _has_preamble(data):
        return "DICOM"
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if data.startswith(b"PK\x03\x04"):
        raise UnreadableError("it is an archive; name the row of an .npz file as in file.npz#0")
    for magic, name in _FOREIGN.items():
        if data.startswith(magic):
            raise UnreadableError(f"it is {name}; DICOM, PNG, JPEG, TIFF and .npz are read")
    if _BARE_DICOM.match(data):
        return "DICOM"
    raise UnreadableError("its content is none of DICOM, PNG, JPEG, TIFF")


def _has_preamble(data: bytes) -> bool:
    return data[128:132] == b"DICM"


# PNG, JPEG, TIFF


def _read_raster(data: bytes, container: str, frame: int | None) -> NDArray[Any]:
    """Return the grey image (H, W), uint8 or uint16 as stored, of what OpenCV decodes."""
    inverted = False
    if container == "TIFF":
        data, inverted = prepare_tiff(data, frame)
    else:
        check_frame(frame, 1)
        claim = jpeg_frame(data) if container == "JPEG" else _png_size(data)
        if claim is None:
            raise UnreadableError(f"its {container} header is damaged or cut short")
        check_size(*claim[:2])
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise UnreadableError(
            f"its {container} content is damaged, cut short or of an unknown kind"
        )
    grey = decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, _LUMA[decoded.shape[2]])
    return cv2.bitwise_not(grey) if inverted else grey


_LUMA = {3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}


def _png_size(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR" or len(data) < 24:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height

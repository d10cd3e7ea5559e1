"""The one door through which image files are read, whatever their container."""

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "ImageReadError", "Radiograph", "is_image_file", "read_image"]

IMAGE_SUFFIXES = frozenset({".dcm", ".dicom", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
"""Suffixes, in lower case, by which a folder scan knows an image."""

MAX_PIXELS = 2**26
"""Largest image that is decoded, four times a stitched radiograph; a damaged size claims more."""

MAX_BYTES = 2**31
"""Largest file that is read, and largest size to which compressed content may unfold."""

Depth = Literal["uint8", "float32"]


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


class UnreadableError(Exception):
    """Why a file cannot be read, raised behind the door where its path is not known."""


def read_image(path: str | Path, *, depth: Depth = "uint8", frame: int | None = None) -> Radiograph:
    """Return the image of a DICOM, PNG, JPEG or TIFF file, or one row of an ``.npz`` archive.

    The content decides the container, not the suffix. Colour becomes luma (0.299 R + 0.587 G +
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
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return True
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return _has_preamble(file.read(132))
    except OSError:
        return False


def quantise(unit: NDArray[np.floating[Any]], depth: Depth) -> NDArray[Any]:
    """Return grey values in [0, 1] as uint8, rounded to the nearest, or as float32."""
    grey: NDArray[Any] = np.clip(unit, 0, 1)
    if depth == "float32":
        return grey.astype(np.float32)
    return (grey * 255).round().astype(np.uint8)


def scale(grey: NDArray[Any], bits: int, depth: Depth) -> NDArray[Any]:
    """Return an image (H, W) uint8 or uint16, whose white is 2**bits - 1, at a depth."""
    if depth == "uint8" and bits == 8 and grey.dtype == np.uint8:
        return grey
    table = quantise(np.arange(256**grey.dtype.itemsize) / (2**bits - 1), depth)
    scaled: NDArray[Any] = table[grey]
    return scaled


def kind(error: BaseException) -> str:
    """Return the type of an error, which says something where its text must not be quoted."""
    module, name = type(error).__module__, type(error).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def check_size(width: int, height: int) -> None:
    """Refuse a size, as a header claims it, that is empty or beyond `MAX_PIXELS`."""
    if min(width, height) < 1 or width * height > MAX_PIXELS:
        raise UnreadableError(
            f"its header claims {width} x {height} pixels; from 1 to {MAX_PIXELS} are accepted"
        )


def check_frame(frame: int | None, count: int) -> int:
    """Return the number of the frame to decode, and refuse a choice that does not exist."""
    if frame is None and count > 1:
        raise UnreadableError(
            f"it holds {count} frames; say which with frame=0 to frame={count - 1}"
        )
    if not 0 <= (frame or 0) < count:
        raise UnreadableError(f"it has no frame {frame}; it holds {count}, numbered from 0")
    return frame or 0


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
    file, separator, row = source.rpartition("#")
    if separator and file.lower().endswith(".npz"):
        check_frame(frame, 1)
        return scale(_read_row(file, row), 8, depth), 8
    data = _read_bytes(source)
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
        data, inverted = _prepare_tiff(data, frame)
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


_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_REDUCED, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_BYTES = 273, 274, 277, 279
_TILES, _TILE_BYTES, _EXTRA, _FORMAT = 324, 325, 338, 339


@dataclass(frozen=True)
class _TiffPage:
    """One directory of a TIFF file: where it stands, and the tags that are of interest here.

    Attributes:
        offset: Position of the directory.
        tags: Position of the entry and values, by tag.
    """

    offset: int
    tags: dict[int, tuple[int, tuple[int, ...]]]

    def values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        return self.tags[tag][1] if tag in self.tags else default

    def value(self, tag: int, default: int) -> int:
        return self.values(tag, (default,))[0]


def _prepare_tiff(data: bytes, frame: int | None) -> tuple[bytes, bool]:
    """Return a TIFF file that OpenCV reads as stored, and whether its grey is still inverted.

    OpenCV honours the orientation and multiplies by alpha at 8 bits but not at 16, inverts
    MINISWHITE likewise, and opens the first page whatever it is. The tags are set so that none of
    this happens.
    """
    order = "<" if data.startswith(b"II") else ">"
    try:
        pages = [page for page in _tiff_pages(data, order) if not page.value(_REDUCED, 0) & 1]
    except (struct.error, IndexError):
        raise UnreadableError("its TIFF directory is damaged or cut short") from None
    page = pages[check_frame(frame, len(pages))] if pages else None
    if page is None:
        raise UnreadableError("its TIFF directory lists no image")
    check_size(page.value(_WIDTH, 0), page.value(_HEIGHT, 0))
    _check_tiff_samples(page)
    _check_tiff_extent(page, len(data))
    patched = bytearray(data)
    struct.pack_into(f"{order}I", patched, 4, page.offset)
    for tag, value in ((_ORIENTATION, 1), (_EXTRA, 0)):
        if tag in page.tags:
            struct.pack_into(f"{order}HIHH", patched, page.tags[tag][0] + 2, 3, 1, value, 0)
    inverted = page.value(_BITS, 1) == 16 and page.value(_PHOTOMETRIC, 1) == 0
    return bytes(patched), inverted


def _tiff_pages(data: bytes, order: str) -> Iterator[_TiffPage]:
    seen: set[int] = set()
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    while offset and offset not in seen:  # a damaged chain may be a circle
        seen.add(offset)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        end = offset + 2 + 12 * count
        tags = {}
        for entry in range(offset + 2, end, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
            if tag in _TIFF_TAGS and kind in _TIFF_TYPES and number:
                layout = f"{order}{number}{_TIFF_TYPES[kind]}"
                inline = struct.calcsize(layout) <= 4
                at = entry + 8 if inline else struct.unpack_from(f"{order}I", data, entry + 8)[0]
                tags[tag] = entry, struct.unpack_from(layout, data, at)
        yield _TiffPage(offset, tags)
        (offset,) = struct.unpack_from(f"{order}I", data, end)


_TIFF_TAGS = {
    *(_REDUCED, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _STRIPS, _ORIENTATION, _SAMPLES),
    *(_STRIP_BYTES, _TILES, _TILE_BYTES, _EXTRA, _FORMAT),
}


def _check_tiff_samples(page: _TiffPage) -> None:
    """Refuse samples that OpenCV would convert in its own way, or that have no white."""
    bits, formats = set(page.values(_BITS, (1,))), set(page.values(_FORMAT, (1,)))
    if formats != {1} or bits not in ({8}, {16}):
        kind = "/".join(map(str, sorted(bits))) + (" unsigned" if formats == {1} else " other")
        raise UnreadableError(
            f"its TIFF samples have {kind} bits; save it with 8 or 16 unsigned bits"
        )
    if bits == {16} and (page.value(_PHOTOMETRIC, 1) > 2 or page.value(_SAMPLES, 1) == 2):
        raise UnreadableError(
            "its 16-bit TIFF samples are neither grey nor RGB(A); save it as grey"
        )


def _check_tiff_extent(page: _TiffPage, size: int) -> None:
    """Refuse a page whose strips or tiles lie beyond the file: OpenCV may show them as black."""
    for starts, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        pairs = zip(page.values(starts, ()), page.values(lengths, ()), strict=False)
        if any(start + length > size for start, length in pairs):
            raise UnreadableError("its TIFF content is cut short")


# Archives of arrays


_ROW = re.compile(r"(?:(?P<name>\w+)/)?(?P<row>\d+)")


def _read_row(file: str, row: str) -> NDArray[np.uint8]:
    """Return a row of an array; a copy, so that a caller cannot change what is remembered."""
    match = _ROW.fullmatch(row)
    if match is None:
        raise UnreadableError(f"'#{row}' names no row; write file.npz#0 or file.npz#name/0")
    status = os.stat(file)
    name = match["name"] or "images"
    images = _read_array(file, name, status.st_mtime_ns, status.st_size)
    if int(match["row"]) >= len(images):
        raise UnreadableError(f"its array {name!r} has {len(images)} rows, numbered from 0")
    return np.array(images[int(match["row"])])


@lru_cache(maxsize=4)  # the train, validation and test arrays of one release
def _read_array(file: str, name: str, modified: int, size: int) -> NDArray[np.uint8]:
    """Return an array (N, H, W) uint8; the last two arguments tell versions of a file apart."""
    try:
        with zipfile.ZipFile(file) as archive:
            if f"{name}.npy" not in archive.namelist():
                raise UnreadableError(f"it has no array {name!r}; it holds {archive.namelist()}")
            with archive.open(f"{name}.npy") as member:
                _check_array(member, archive.getinfo(f"{name}.npy").file_size)
            with archive.open(f"{name}.npy") as member:
                images: NDArray[np.uint8] = np.lib.format.read_array(member, allow_pickle=False)
                return images
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError):
        raise UnreadableError("its archive is damaged, cut short or holds no plain array") from None


def _check_array(member: Any, size: int) -> None:
    """Refuse an array by its header alone, before memory is set aside for it."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if dtype != np.uint8 or len(shape) != 3:
        raise UnreadableError(f"its array is {dtype} of shape {shape}, not uint8 of (N, H, W)")
    check_size(shape[2], shape[1])
    if not prod(shape) <= size <= 2 * MAX_BYTES:
        raise UnreadableError(f"its array claims {prod(shape)} bytes and unfolds to {size}")

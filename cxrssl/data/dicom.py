"""DICOM: from stored values to the grey image a radiologist is shown, bones bright."""

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
)
from pydicom.pixels.utils import pixel_array
from pydicom.tag import Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from cxrssl.data.jpeg import jpeg_frame
from cxrssl.data.reading import (
    MAX_BYTES,
    Depth,
    UnreadableError,
    check_frame,
    check_size,
    kind,
    quantise,
    scale,
)

__all__ = ["read_dicom"]

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_REQUIRED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
_PALETTES = tuple(
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue", "Alpha")
    for part in ("Descriptor", "Data")
)
_SEGMENTED_PALETTES = tuple(
    f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha")
)

# Nothing else is parsed: elements that identify a patient are skipped, and cannot fail a read.
_ELEMENTS = (
    *_PIXELS,
    *_REQUIRED,
    *_PALETTES,
    *_SEGMENTED_PALETTES,
    "SamplesPerPixel",
    "PlanarConfiguration",
    "NumberOfFrames",
    "BitsStored",
    "PixelRepresentation",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
)

# gdcm comes late because a damaged stream can make it abort the process. For JPEG-LS, pylibjpeg
# would show damage that pyjpegls reports. Pillow is at hand wherever torchvision is, so that
# baseline JPEG looks the same on every machine; it knows only 8 of the 12 bits of extended JPEG.
_PLUGIN_ORDER = ("pyjpegls", "pylibjpeg", "pillow", "pydicom", "gdcm")
_PLUGIN_ORDERS: dict[str, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "pylibjpeg", "gdcm"),
    JPEGExtended12Bit: ("pylibjpeg", "gdcm", "pillow"),
}

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_dicom(data: bytes, *, depth: Depth, frame: int | None) -> tuple[NDArray[Any], int]:
    """Return the displayed image (H, W) of a DICOM file and its stored bit depth.

    Monochrome values pass the modality LUT or rescale, then the first VOI LUT or window with its
    function (linear, linear exact, sigmoid); without a usable one, the smallest and largest value
    of the image become black and white, and an image of one value is black. MONOCHROME1 is
    inverted last. Pixel padding takes no part in the extremes and is black in every case, as are
    floating-point pixels without a finite value. Colour becomes luma. Windows inside functional
    groups are not looked up.

    Args:
        data: The whole file, with or without its preamble.
        depth: Whether pixels are uint8 or float32 in [0, 1].
        frame: Which frame, from 0; a file of several needs it.

    Raises:
        UnreadableError: If no image comes out. The cause names elements but never quotes their
            values, which may identify a patient.
    """
    with _quiet():
        with _stage("its DICOM header is damaged or incomplete"):
            header = _read_header(data)
            count = int(header.get("NumberOfFrames", 1)) or 1
            index = check_frame(frame, count)
            decoder = _find_decoder(header.file_meta.TransferSyntaxUID)
        with _stage(f"its pixel data ({decoder.UID.name}) cannot be decoded"):
            _check_extent(header, decoder, index, count)
            plugin = _choose_plugin(decoder)
            stored = pixel_array(header, index=index, decoding_plugin=plugin)
            stored = stored.astype(stored.dtype.newbyteorder("="), order="C", copy=False)
        with _stage("its grey scale cannot be applied"):
            # Floating-point images have neither element, and windows need both.
            bits = int(header.setdefault("BitsStored", header.BitsAllocated).value)
            header.setdefault("PixelRepresentation", 0)
            if header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
                return _render(stored, header, depth), bits
            return _render_colour(stored, header, bits, depth), bits


# Silence and discretion: pydicom's warnings, log records and errors may quote the header.

_READING: ContextVar[bool] = ContextVar("reading", default=False)


def _is_foreign(record: logging.LogRecord) -> bool:
    return not _READING.get()


for _name in ("pydicom", "pydicom.pixels.utils", "pydicom.pixels.decoders.base"):
    logging.getLogger(_name).addFilter(_is_foreign)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what pydicom would warn of or log during a read from the user."""
    token = _READING.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _READING.reset(token)


@contextmanager
def _stage(failure: str) -> Iterator[None]:
    """Turn whatever a stage of reading raises into `UnreadableError`, without quoting it."""
    try:
        yield
    except (UnreadableError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a compiled decoder is not an Exception
        raise UnreadableError(f"{failure} ({kind(error)}{_element(error)})") from None


def _element(error: BaseException) -> str:
    """Return the element that an error of pydicom is about, if it names one."""
    match = re.search(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)", str(error))
    if match is None:
        return ""
    tag = Tag(int(match[1], 16), int(match[2], 16))
    return f" at {tag} {dictionary_description(tag)}" if dictionary_has_tag(tag) else f" at {tag}"


# Header


def _read_header(data: bytes) -> Dataset:
    """Return the elements that describe and hold the pixels; empty ones count as absent."""
    _check_inflation(data)
    header = dcmread(BytesIO(data), force=True, specific_tags=list(_ELEMENTS))
    for keyword in _ELEMENTS:
        if keyword in header and header[keyword].is_empty:
            del header[keyword]
    if not any(keyword in header for keyword in _PIXELS):
        raise UnreadableError("it holds no pixel data: it is not an image, or it is cut short")
    for keyword in _REQUIRED:
        if keyword not in header:
            raise UnreadableError(f"its header lacks {keyword}")
    check_size(header.Columns, header.Rows)
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return header


def _check_inflation(data: bytes) -> None:
    """Refuse a deflated file that would unfold beyond `MAX_BYTES`; pydicom inflates all at once."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[:1024]:
        return
    meta_length = int.from_bytes(data[140:144], "little")  # value of (0002,0000), the first element
    rest = data[144 + meta_length :]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = 0
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, 2**24))
        rest = inflater.unconsumed_tail
        if inflated > MAX_BYTES:
            raise UnreadableError(f"its deflated content unfolds beyond {MAX_BYTES} bytes")


# Pixels


def _find_decoder(syntax: UID) -> Decoder:
    """Return pydicom's decoder of a transfer syntax that can be read on this machine."""
    name = syntax.name if syntax.is_transfer_syntax else "(unregistered)"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UnreadableError(f"its transfer syntax {name} is not supported") from None
    if not decoder.is_available:
        raise UnreadableError(
            f"its transfer syntax {name} needs a decoder that is not installed: "
            'pip install "cxrssl[dicom]"'
        )
    return decoder


def _choose_plugin(decoder: Decoder) -> str:
    """Return the one plugin that decodes: trying the next after a failure would hide damage."""
    order = _PLUGIN_ORDERS.get(decoder.UID, _PLUGIN_ORDER)
    return next((plugin for plugin in order if plugin in decoder.available_plugins), "")


def _check_extent(header: Dataset, decoder: Decoder, index: int, count: int) -> None:
    """Refuse pixel data that is shorter than its header claims, or unfolds to a huge image."""
    if decoder.is_encapsulated:
        _check_stream(get_frame(header.PixelData, index, number_of_frames=count))
        return
    samples = int(header.get("SamplesPerPixel", 1))
    if header.PhotometricInterpretation == "YBR_FULL_422":
        samples = 2  # two pixels share their colour
    needed = count * header.Rows * header.Columns * samples * header.BitsAllocated // 8
    size = len(next(header[keyword].value for keyword in _PIXELS if keyword in header))
    if size < needed:
        raise UnreadableError(f"its pixel data is cut short: {size} of {needed} bytes")


def _check_stream(stream: bytes) -> None:
    """Refuse a damaged or huge frame header, which may bring a decoder, and the process, down."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 256)  # JPEG 2000: start, then the size segment
    if start >= 0:
        right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
        check_size(right - left, bottom - top)
    elif stream.startswith(b"\xff\xd8"):
        claim = jpeg_frame(stream, strict=True)
        if claim is None or not 2 <= claim[2] <= 16:
            raise UnreadableError("the header of its compressed pixel data is damaged")
        check_size(claim[0], claim[1] or 1)  # a height of 0 is given after the pixels


def _render_colour(stored: NDArray[Any], header: Dataset, bits: int, depth: Depth) -> NDArray[Any]:
    """Return the luma (H, W) of colour values; pydicom has brought YBR to RGB."""
    if header.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, header)[..., :3]
        bits = 8 * stored.dtype.itemsize
    elif header.PhotometricInterpretation not in _COLOURS:
        raise UnreadableError(
            f"its photometric interpretation is none of MONOCHROME1, MONOCHROME2, PALETTE COLOR, "
            f"{', '.join(_COLOURS)}"
        )
    grey = cv2.cvtColor(np.ascontiguousarray(stored), cv2.COLOR_RGB2GRAY)
    return scale(grey, bits, depth)


def _render(stored: NDArray[Any], header: Dataset, depth: Depth) -> NDArray[Any]:
    """Return monochrome values (H, W) as they are displayed."""
    if stored.ndim != 2:
        raise UnreadableError("it is monochrome but has several samples per pixel")
    if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        return quantise(_shade(stored, header, np.ones(stored.shape, bool)), depth)
    # Every value that can be stored is rendered once; the pixels, far more, are looked up.
    codes = stored.view(f"u{stored.dtype.itemsize}")
    levels = np.arange(256**codes.dtype.itemsize).astype(codes.dtype).view(stored.dtype)
    present = np.zeros(len(levels), bool)
    present[codes] = True
    table = quantise(_shade(levels, header, present), depth)
    pixels: NDArray[Any] = table[codes]
    return pixels


def _shade(
    stored: NDArray[Any], header: Dataset, present: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return stored values as grey in [0, 1].

    Args:
        stored: Stored values of any shape: an image, or a table of levels.
        header: The image's elements.
        present: Which of them occur in the image and thus count for its extremes.
    """
    padding = _is_padding(stored, header)
    exact = np.int64 if stored.dtype.kind in "iu" else np.float64  # no wrap-around within pydicom
    values = np.where(padding, 0, stored).astype(exact)
    if header.get("ModalityLUTSequence"):
        _widen(header.ModalityLUTSequence[0])
    values = apply_modality_lut(values, header)
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    grey = _apply_voi(values, header)
    if grey is None:
        grey = _stretch(values * (-1.0 if inverted else 1.0), present & ~padding)
    elif inverted:
        grey = 1 - grey
    if not np.isfinite(grey).all():
        raise UnreadableError("its rescale or window leaves no finite grey values")
    return np.where(padding, 0.0, grey)


def _is_padding(stored: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    """Return which stored values are padding: background that was never exposed."""
    if stored.dtype.kind == "f":
        missing: NDArray[np.bool_] = ~np.isfinite(stored)
        return missing
    if "PixelPaddingValue" not in header:
        return np.zeros(stored.shape, bool)
    limits = [header.PixelPaddingValue, header.get("PixelPaddingRangeLimit")]
    limits = [limits[0] if limit is None else limit for limit in limits]
    # Writers disagree on the sign of this element: its bits are what the pixels hold.
    low, high = sorted(np.array(limits, np.int64).astype(stored.dtype))
    padding: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return padding


def _apply_voi(values: NDArray[Any], header: Dataset) -> NDArray[np.float64] | None:
    """Return values after the first VOI LUT or window, scaled to [0, 1]; None without one."""
    grey: NDArray[np.float64]
    tables = header.get("VOILUTSequence")
    if tables and "LUTDescriptor" in tables[0] and "LUTData" in tables[0]:
        depth = _widen(tables[0])
        entries, first, _ = tables[0].LUTDescriptor
        inputs = np.clip(np.rint(values), first, first + (entries or 2**16) - 1).astype(np.int64)
        grey = apply_voi(inputs, header) / (2**depth - 1)
        return grey
    if not _has_window(header):
        return None
    # The ends of the output range, which depend on the rescale, are the window's own limits.
    black, white = apply_windowing(np.array([-np.inf, np.inf]), header)
    with np.errstate(all="ignore"):
        grey = (apply_windowing(values, header) - black) / (white - black)
    return grey


def _widen(table: Dataset) -> int:
    """Return the bits of a LUT's entries, and mark them as 16: pydicom indexes with their type."""
    entries, first, depth = table.LUTDescriptor
    table.LUTDescriptor = [entries, first, 16]
    return int(depth)


def _has_window(header: Dataset) -> bool:
    """Tell whether there is a window of positive width; scanners write 0 where they have none."""
    if "WindowCenter" not in header or "WindowWidth" not in header:
        return False
    function = header.setdefault("VOILUTFunction", "LINEAR").value.upper()
    width = header["WindowWidth"]
    first = width.value[0] if width.VM > 1 else width.value
    return bool(first >= 1 if function == "LINEAR" else first > 0)


def _stretch(values: NDArray[Any], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return values scaled so that the extremes of the counted ones are 0 and 1."""
    if not counted.any():
        return np.zeros(values.shape)
    low, high = float(values[counted].min()), float(values[counted].max())
    return np.clip((values - low) / ((high - low) or 1.0), 0, 1)

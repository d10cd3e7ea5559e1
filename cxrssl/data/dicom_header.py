"""The elements of a DICOM file that describe and hold its pixels."""

import zlib
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxrssl.data.reading import MAX_PIXELS, UnreadableError, check_size

__all__ = ["PIXELS", "read_header"]

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
"""Elements that hold pixels; a file has one of them."""

_REQUIRED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
_PALETTES = tuple(
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue", "Alpha")
    for part in ("Descriptor", "Data")
)
_SEGMENTED_PALETTES = tuple(
    f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue", "Alpha")
)
_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")

# Nothing else is parsed: elements that identify a patient are skipped, and cannot fail a read.
_ELEMENTS = (
    *PIXELS,
    *_REQUIRED,
    *_PALETTES,
    *_SEGMENTED_PALETTES,
    *_OFFSETS,
    "SamplesPerPixel",
    "PlanarConfiguration",
    "NumberOfFrames",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
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

_MAX_READS = 2**18
"""Pieces a file may be read in, two or three an element: enough for thousands of frames, each
described on its own, and over in seconds."""

_MAX_ELEMENT = 2**20
"""Bytes of an element other than the pixels; the longest table has 2**17."""

_MAX_UNFOLDED = 4 * MAX_PIXELS
"""Bytes to which deflated elements may unfold, twice the largest radiograph of 16 bits."""


def read_header(data: bytes) -> Dataset:
    """Return the elements that describe and hold the pixels; empty ones count as absent.

    Args:
        data: The whole file, with or without its preamble.

    Raises:
        UnreadableError: If it holds no pixels, lacks what describes them, or claims what no
            radiograph has. Anything that pydicom raises comes through.
    """
    header = dcmread(_Stream(_unfold(data)), force=True, specific_tags=list(_ELEMENTS))
    for keyword in _ELEMENTS:
        if keyword in header:
            _check_length(header, keyword)
            if header[keyword].is_empty:
                del header[keyword]
    if not any(keyword in header for keyword in PIXELS):
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


class _Stream(BytesIO):
    """A file in memory that ends a read of endlessly many elements."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        # pydicom asks for all at once only to unfold it, without a limit.
        if size is None or size < 0:
            raise UnreadableError("its meta information is damaged")
        self._left -= 1
        if self._left < 0:
            raise UnreadableError("it holds more elements than any radiograph")
        return super().read(size)


def _unfold(data: bytes) -> bytes:
    """Return a deflated file as a plain one, and any other as it is."""
    deflated = DeflatedExplicitVRLittleEndian.encode()
    if deflated not in data:
        return data
    stream = _Stream(data)
    read_preamble(stream, force=True)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return data
    start = stream.tell()
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    unfolded = inflater.decompress(data[start:], _MAX_UNFOLDED)
    if not inflater.eof:
        if len(unfolded) < _MAX_UNFOLDED:
            raise UnreadableError("its deflated content is cut short")
        raise UnreadableError(f"its deflated content unfolds beyond {_MAX_UNFOLDED} bytes")
    plain = ExplicitVRLittleEndian.encode().ljust(len(deflated), b"\0")
    return data[:start].replace(deflated, plain) + unfolded


def _check_length(header: Dataset, keyword: str) -> None:
    """Refuse an element too long for what it says, before it is parsed."""
    if keyword in PIXELS or keyword in _OFFSETS:
        return
    value = header.get_item(keyword).value
    if isinstance(value, bytes) and len(value) > _MAX_ELEMENT:
        raise UnreadableError(f"its {keyword} has {len(value)} bytes")

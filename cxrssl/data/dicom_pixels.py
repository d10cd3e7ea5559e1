"""The stored values of one frame of a DICOM file."""

import struct
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGTransferSyntaxes,
    RLELossless,
)

from cxrssl.data.dicom_header import PIXELS
from cxrssl.data.jpeg import jpeg_frame
from cxrssl.data.jpeg_stream import is_whole_jpeg
from cxrssl.data.reading import MAX_PIXELS, UnreadableError

__all__ = ["find_decoder", "read_pixels"]

# gdcm comes late because a damaged stream can make it end the process. For JPEG-LS, pylibjpeg
# would show damage that pyjpegls reports. Pillow is at hand wherever torchvision is, so that
# baseline JPEG looks the same on every machine; it knows only 8 of the 12 bits of extended JPEG.
_PLUGIN_ORDER = ("pyjpegls", "pylibjpeg", "pillow", "pydicom", "gdcm")
_PLUGIN_ORDERS: dict[str, tuple[str, ...]] = {
    JPEGBaseline8Bit: ("pillow", "pylibjpeg", "gdcm"),
    JPEGExtended12Bit: ("pylibjpeg", "gdcm", "pillow"),
}

_MAX_FRAME = 2 * MAX_PIXELS
"""Bytes of a frame: the largest image of 16 bits."""

_MAX_TILES = 2**12
"""Tiles of a JPEG 2000 stream, each of which takes memory before it is decoded."""

_RLE_GAIN = 64
"""Largest factor by which run-length coding unfolds: two bytes stand for 128."""

_MAX_PIXELS_WIDE = MAX_PIXELS // 4
"""Largest image in colour or of more than 16 bits, whose values are converted in floats."""


def find_decoder(syntax: UID) -> Decoder:
    """Return pydicom's decoder of a transfer syntax that can be read on this machine.

    Raises:
        UnreadableError: If there is none.
    """
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


def read_pixels(header: Dataset, decoder: Decoder, index: int, count: int) -> NDArray[Any]:
    """Return the stored values (H, W), or (H, W, 3) in RGB, of one of ``count`` frames.

    Raises:
        UnreadableError: If there are fewer than the header claims, or more than any radiograph has.
            Anything that the decoder raises comes through.
    """
    size = _check_claim(header)
    if decoder.is_encapsulated:
        stream = get_frame(header.PixelData, index, number_of_frames=count)
        _check_stream(stream, header, decoder, size)
        return _decode(header, decoder, index)
    _check_length(header, count)
    below = _bits_below(header)
    if not below:
        return _decode(header, decoder, index)
    bits = header.BitsStored
    header.BitsStored = bits + below
    stored = _decode(header, decoder, index)
    header.BitsStored = bits
    # Some headers are wrong about it; then the values fit as they are.
    top = 2 ** (bits - header.PixelRepresentation)
    fits = -top * header.PixelRepresentation <= stored.min() and stored.max() < top
    return stored if fits else stored >> below


def _decode(header: Dataset, decoder: Decoder, index: int) -> NDArray[Any]:
    """Return the values of a frame in this machine's byte order."""
    plugin = _choose_plugin(decoder)
    unused = header.BitsAllocated - header.get("BitsStored", header.BitsAllocated)
    if plugin == "gdcm" and header.BitsAllocated == 8 and 0 < unused < 8:
        # gdcm ends the process over unused bits of a byte.
        stored = pixel_array(header, index=index, decoding_plugin=plugin, bits_stored=8)
        stored = (stored << unused) >> unused
    else:
        stored = pixel_array(header, index=index, decoding_plugin=plugin)
    native: NDArray[Any] = stored.astype(stored.dtype.newbyteorder("="), order="C", copy=False)
    return native


def _bits_below(header: Dataset) -> int:
    """Return how many unused bits lie below a sample: old files kept overlays there."""
    if "HighBit" not in header or not 0 < header.get("BitsStored", 0) <= header.BitsAllocated:
        return 0
    return int(max(0, min(header.HighBit, header.BitsAllocated - 1) + 1 - header.BitsStored))


def _choose_plugin(decoder: Decoder) -> str:
    """Return the one plugin that decodes: trying the next after a failure would hide damage."""
    order = _PLUGIN_ORDERS.get(decoder.UID, _PLUGIN_ORDER)
    return next((plugin for plugin in order if plugin in decoder.available_plugins), "")


def _check_claim(header: Dataset) -> int:
    """Return the bytes that a frame unfolds to; refuse those that no memory should hold."""
    pixels, bits = header.Rows * header.Columns, header.BitsAllocated
    samples = int(header.get("SamplesPerPixel", 1))
    size = int(pixels * samples * bits // 8)
    if size > _MAX_FRAME or (pixels > _MAX_PIXELS_WIDE and (samples > 1 or bits > 16)):
        raise UnreadableError(
            f"its header claims {header.Columns} x {header.Rows} pixels of {samples} x {bits} "
            "bits, more than any radiograph has"
        )
    return size


def _check_length(header: Dataset, count: int) -> None:
    """Refuse plain pixel data that is shorter than its header claims."""
    samples = int(header.get("SamplesPerPixel", 1))
    if header.PhotometricInterpretation == "YBR_FULL_422":
        samples = 2  # two pixels share their colour
    needed = count * header.Rows * header.Columns * samples * header.BitsAllocated // 8
    size = len(next(header[keyword].value for keyword in PIXELS if keyword in header))
    if size < needed:
        raise UnreadableError(f"its pixel data is cut short: {size} of {needed} bytes")


def _check_stream(stream: bytes, header: Dataset, decoder: Decoder, size: int) -> None:
    """Refuse a damaged or huge stream, which may bring a decoder, and the process, down."""
    syntax = decoder.UID
    if syntax == RLELossless:
        if size > _RLE_GAIN * len(stream):
            raise UnreadableError(f"its pixel data is cut short: {len(stream)} bytes for {size}")
        return
    if syntax in JPEG2000TransferSyntaxes:
        claim = _claim_of_j2k(stream)
    else:
        claim = _claim_of_jpeg(stream, header.BitsAllocated)
    if claim is None:
        raise UnreadableError("the header of its compressed pixel data is damaged")
    wanted = header.Columns, header.Rows, int(header.get("SamplesPerPixel", 1))
    if claim != wanted:
        raise UnreadableError(
            f"its header claims {_product(wanted)} values, its compressed pixel data "
            f"{_product(claim)}"
        )
    if syntax in JPEGTransferSyntaxes and _choose_plugin(decoder) == "gdcm":
        _check_for_gdcm(stream, header, syntax)


def _check_for_gdcm(stream: bytes, header: Dataset, syntax: UID) -> None:
    """Refuse what gdcm cannot decode, or ends the process over."""
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        raise UnreadableError(
            f"its transfer syntax {syntax.name} of more than 8 bits needs a decoder that is not "
            "installed: pip install pylibjpeg-libjpeg, whose licence is the GPL"
        )
    if not is_whole_jpeg(stream):
        raise UnreadableError("its compressed pixel data is damaged or cut short")


def _product(claim: tuple[int, int, int]) -> str:
    return " x ".join(map(str, claim))


def _claim_of_jpeg(stream: bytes, allocated: int) -> tuple[int, int, int] | None:
    """Return (width, height, samples) as a JPEG or JPEG-LS stream has them; None beyond 16 bits."""
    claim = jpeg_frame(stream, strict=True) if stream.startswith(b"\xff\xd8") else None
    if claim is None or not 2 <= claim.precision <= allocated <= 16:
        return None
    return claim.width, claim.height, claim.samples


def _claim_of_j2k(stream: bytes) -> tuple[int, int, int] | None:
    """Return (width, height, samples) as a JPEG 2000 stream has them."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 256)  # start, then the size segment
    if start < 0 or len(stream) < start + 42:
        return None
    sizes = struct.unpack_from(">8IH", stream, start + 8)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, samples = sizes
    if not (tile_width and tile_height):
        return None
    across = -(-(right - tile_left) // tile_width)
    down = -(-(bottom - tile_top) // tile_height)
    return (right - left, bottom - top, samples) if across * down <= _MAX_TILES else None

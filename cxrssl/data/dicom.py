"""DICOM: what is read of a file, and what is said when nothing can be."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray
from pydicom.datadict import dictionary_description, dictionary_has_tag
from pydicom.tag import Tag

from cxrssl.data.dicom_grey import render
from cxrssl.data.dicom_header import read_header
from cxrssl.data.dicom_pixels import find_decoder, read_pixels
from cxrssl.data.reading import Depth, UnreadableError, check_frame, kind

__all__ = ["read_dicom"]


def read_dicom(data: bytes, *, depth: Depth, frame: int | None) -> tuple[NDArray[Any], int]:
    """Return the displayed image (H, W) of a DICOM file and its stored bit depth.

    Monochrome values pass the modality LUT or rescale, then the first VOI LUT or window with its
    function (linear, linear exact, sigmoid); without a usable one, the smallest and largest value
    of the image become black and white, and an image of one value is black. MONOCHROME1 is
    inverted last. Pixel padding takes no part in the extremes and is black in every case, as are
    floating-point pixels without a finite value. Colour becomes luma. Overlays are not drawn, and
    orientation tags are ignored: the grid is the stored one. Windows inside functional groups are
    not looked up.

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
            header = read_header(data)
            count = int(header.get("NumberOfFrames", 1)) or 1
            index = check_frame(frame, count)
            decoder = find_decoder(header.file_meta.TransferSyntaxUID)
        with _stage(f"its pixel data ({decoder.UID.name}) cannot be decoded"):
            stored = read_pixels(header, decoder, index, count)
        with _stage("its grey scale cannot be applied"):
            # Floating-point images have neither element, and windows need both.
            bits = int(header.setdefault("BitsStored", header.BitsAllocated).value)
            header.setdefault("PixelRepresentation", 0)
            return render(stored, header, bits, depth), bits


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
    return f" at {tag} {dictionary_description(tag)}" if dictionary_has_tag(tag) else ""

"""From stored values of DICOM to the grey a radiologist is shown, bones bright."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels.processing import (
    apply_color_lut,
    apply_modality_lut,
    apply_voi,
    apply_windowing,
)

from cxrssl.data.reading import Depth, UnreadableError, quantise, scale

__all__ = ["render"]

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def render(stored: NDArray[Any], header: Dataset, bits: int, depth: Depth) -> NDArray[Any]:
    """Return the displayed image (H, W) of stored values, as `read_dicom` describes it.

    Args:
        stored: (H, W), or (H, W, 3) in RGB.
        header: The image's elements, with bits stored and pixel representation.
        bits: Bits of a sample.
        depth: Whether pixels are uint8 or float32 in [0, 1].

    Raises:
        UnreadableError: If the grey scale makes no sense. Anything that pydicom raises comes
            through.
    """
    if header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2"):
        return _render(stored, header, depth)
    return _render_colour(stored, header, bits, depth)


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

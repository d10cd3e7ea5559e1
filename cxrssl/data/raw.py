"""The raw images of JSRT, which have no header and are known by their suffix and size alone."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrssl.data.reading import UnreadableError

__all__ = ["RAW_BITS", "RAW_BYTES", "RAW_SUFFIX", "is_raw", "read_raw"]

RAW_SUFFIX = ".img"
"""Suffix in lower case."""

RAW_BITS = 12
"""Significant bits of the 16 that are stored."""

_SIDE = 2048
_WHITE = 2**RAW_BITS - 1

RAW_BYTES = 2 * _SIDE**2
"""Size of each file: other formats, of volumes and of discs, have the suffix too."""


def is_raw(path: str | Path, size: int) -> bool:
    """Return whether a file of some bytes is such an image."""
    return size == RAW_BYTES and Path(path).suffix.lower() == RAW_SUFFIX


def read_raw(data: bytes) -> NDArray[np.uint16]:
    """Return the image (2048, 2048) of 12 bits, bones bright; the file has them dark."""
    stored = np.frombuffer(data, ">u2").reshape(_SIDE, _SIDE)
    if stored.max() > _WHITE:
        raise UnreadableError(
            f"it has the size of a raw image of JSRT, but samples up to {stored.max()}, beyond "
            f"{RAW_BITS} bits"
        )
    shown: NDArray[np.uint16] = (_WHITE - stored).astype(np.uint16)
    return shown

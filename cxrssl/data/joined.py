"""Images and masks of several sources behind the interface of one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrssl.data.masks import UNKNOWN
from cxrssl.data.sources import ImageSource
from cxrssl.data.targets import MaskReader

__all__ = ["JoinedImages", "JoinedMasks", "SomeMasks"]


class JoinedImages:
    """Images that several sources have.

    Args:
        parts: The sources.
        which: Which of them has each image (n,).
        place: Its number there (n,).
    """

    def __init__(
        self, parts: list[ImageSource], which: NDArray[np.int64], place: NDArray[np.int64]
    ) -> None:
        self._parts = parts
        self._which = which
        self._place = place

    def __len__(self) -> int:
        return len(self._which)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = self._parts[self._which[number]][int(self._place[number])]
        return pixels

    def name(self, number: int) -> str:
        """Return what a person finds the image by."""
        name: str = self._parts[self._which[number]].name(int(self._place[number]))
        return name


class SomeMasks:
    """Masks of the structures that a dataset has; of others it knows nothing.

    Args:
        reader: Reads the masks of those that are there; None if none is.
        there: Structures the dataset has masks of.
        wanted: Structures that are asked for, in the order of the masks.
    """

    def __init__(
        self, reader: MaskReader | None, there: Sequence[str], wanted: Sequence[str]
    ) -> None:
        self._reader = reader
        self._places = [wanted.index(name) for name in there]
        self._count = len(wanted)

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks (K, H, W) of an image (H, W); see `MaskReader`."""
        masks = np.full((self._count, *shape), UNKNOWN, dtype=np.uint8)
        if self._reader is not None:
            masks[self._places] = self._reader.read(number, shape)
        return masks


class JoinedMasks:
    """Masks that several readers have; see `JoinedImages`."""

    def __init__(
        self, parts: list[SomeMasks], which: NDArray[np.int64], place: NDArray[np.int64]
    ) -> None:
        self._parts = parts
        self._which = which
        self._place = place

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks (K, H, W) of an image (H, W); see `MaskReader`."""
        part: SomeMasks = self._parts[self._which[number]]
        return part.read(int(self._place[number]), shape)

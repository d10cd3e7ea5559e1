"""Where pixels come from: numbered images behind one interface."""

import os
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cxrssl.data.image import read_image
from cxrssl.data.phantom import Phantom

__all__ = ["ImageFiles", "ImageSource", "PhantomSource"]


class ImageSource(Protocol):
    """Images by number, 0 to len - 1."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W), bones bright; raise `ImageReadError` where they are corrupt."""
        ...

    def name(self, number: int) -> str:
        """Return what a person finds the image by."""
        ...


class ImageFiles:
    """Image files read one at a time.

    Args:
        paths: One path per image.
        root: Folder that relative paths start from.
    """

    def __init__(self, paths: Iterable[str], root: str | os.PathLike[str] | None = None) -> None:
        # Reading a list of strings touches their reference counts, and so copies the list into
        # every worker; an Arrow array is one block that stays shared.
        self._paths = pa.array(paths, type=pa.large_string())
        self._root = "" if root is None else os.fspath(root)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = read_image(self.name(number), depth="uint8").pixels
        return pixels

    def name(self, number: int) -> str:
        """Return the path."""
        return os.path.join(self._root, self._paths[number].as_py())


class PhantomSource:
    """Radiographs drawn by the phantom when asked for, or before.

    Args:
        phantom: The generator.
        numbers: Number in the phantom (n,) of each image.
        drawn: Pixels (m, H, W) of the phantom's first m images, where they have been drawn before.
    """

    def __init__(
        self,
        phantom: Phantom,
        numbers: NDArray[np.int64],
        drawn: NDArray[np.uint8] | None = None,
    ) -> None:
        self._phantom = phantom
        self._numbers = numbers
        self._drawn = drawn

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        drawn = int(self._numbers[number])
        return self._phantom.pixels(drawn) if self._drawn is None else self._drawn[drawn]

    def name(self, number: int) -> str:
        """Return the path in the phantom's index."""
        return f"phantom/{self._numbers[number]:06d}"

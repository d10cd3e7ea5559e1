"""What a task writes over an epoch, from all processes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrssl.gathering import gather_images

__all__ = ["Texts"]


class Texts:
    """Texts of an epoch, by the numbers of their images."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}

    def add(self, image_number: Sequence[int], **texts: Sequence[str]) -> None:
        """Take texts of n images, n of each name."""
        for name, values in {"image_number": image_number, **texts}.items():
            self._columns.setdefault(name, []).extend(values)

    def take(self) -> dict[str, NDArray[Any]]:
        """Return and forget the rows of all processes, each once, by ascending image number."""
        rows = {
            name: np.array(values, dtype=np.int64 if name == "image_number" else object)
            for name, values in self._columns.items()
        }
        self._columns = {}
        return gather_images(rows)

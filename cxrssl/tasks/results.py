"""What a task has to show for itself after a test."""

from typing import NamedTuple, Protocol

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

__all__ = ["Results", "TestImages"]


class Results(NamedTuple):
    """Tables and figures of a test, by the name of their file, and what is printed."""

    tables: dict[str, pd.DataFrame]
    figures: dict[str, Figure]
    text: str


class TestImages(Protocol):
    """The images a test has shown."""

    def shown_rows(self, split: str) -> pd.DataFrame:
        """Return the rows of the index."""

    def images(self, numbers: list[int], split: str) -> Tensor:
        """Return the deterministic view (n, C, H, W) of some of them."""

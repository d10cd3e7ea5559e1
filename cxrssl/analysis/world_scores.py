"""Means over images with bootstrap intervals, and the table they stand in."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "FEWEST_IMAGES",
    "Bootstrap",
    "Estimates",
    "Score",
    "is_difference",
    "score_rows",
    "score_table",
    "with_differences",
]

FEWEST_IMAGES = 5
"""Images an interval needs; resamples of fewer say little of how a mean varies."""

_REPLICATES = 1000
_LEVELS = (0.025, 0.975)
_MINUS = " minus "


class Estimates(NamedTuple):
    """Means with their 95 % intervals, four arrays alike."""

    value: NDArray[np.float64]
    """NaN where nothing was observed."""
    low: NDArray[np.float64]
    """NaN where fewer than `FEWEST_IMAGES` images had an observation."""
    high: NDArray[np.float64]
    """As ``low``."""
    images: NDArray[np.int64]
    """Images with an observation."""

    def at(self, *place: int | slice | NDArray[np.bool_]) -> "Estimates":
        """Return the estimates at a place of the first axes."""
        return Estimates(self.value[place], self.low[place], self.high[place], self.images[place])


class Score(NamedTuple):
    """One row of the table."""

    task: str
    condition: str
    measure: str
    value: float
    low: float
    high: float
    chance: float
    images: int


class Bootstrap:
    """1000 resamples of whole images, since the tokens of one image are not independent.

    All that one object estimates rests on the same resamples, so that the interval of a difference
    is that of paired observations.

    Args:
        images: Number n of images.
        rng: Source of the resamples.
    """

    def __init__(self, images: int, rng: np.random.Generator) -> None:
        self._drawn = rng.multinomial(images, np.full(images, 1 / images), size=_REPLICATES)

    def means(self, sums: NDArray[np.floating], counts: NDArray[np.number]) -> Estimates:
        """Return ``sums / counts`` over all images, with percentile intervals.

        Args:
            sums: Sum of what was observed in each image, (n, ...).
            counts: Number of observations in each, of the same shape.

        Returns:
            Estimates of shape (...).
        """
        shape = sums.shape[1:]
        sums, counts = sums.reshape(len(sums), -1), counts.reshape(len(counts), -1)
        images = (counts > 0).sum(0)
        value, low, high = np.full((3, len(images)), np.nan)
        np.divide(sums.sum(0), counts.sum(0), out=value, where=images > 0)
        enough = images >= FEWEST_IMAGES
        totals = self._drawn @ counts[:, enough]
        # A resample may miss all images with an observation; it then has no say.
        missing = np.full(totals.shape, np.nan)
        drawn = np.divide(self._drawn @ sums[:, enough], totals, out=missing, where=totals > 0)
        if enough.any():
            low[enough], high[enough] = np.nanquantile(drawn, _LEVELS, axis=0)
        return Estimates(*(numbers.reshape(shape) for numbers in (value, low, high, images)))

    def group_means(
        self,
        values: NDArray[np.floating],
        groups: NDArray[np.bool_],
        image: NDArray[np.integer],
    ) -> Estimates:
        """Return the means of M values over groups of patches, (G, M).

        Args:
            values: Of each patch of m crops, (m, N, M).
            groups: Which patches are in each of G groups, (G, m, N); groups may overlap.
            image: Number of the image each crop is from, (m,), from 0.
        """
        sums = np.einsum("gmk,mkv->mgv", groups, values)
        counts = np.broadcast_to(groups.sum(-1).T[..., None], sums.shape)
        of_images = np.zeros((2, self._drawn.shape[1], *sums.shape[1:]))
        np.add.at(of_images[0], image, sums)
        np.add.at(of_images[1], image, counts)
        return self.means(of_images[0], of_images[1])


def with_differences(
    observed: Mapping[str, NDArray[np.floating]], differences: Iterable[tuple[str, str]]
) -> dict[str, NDArray[np.floating]]:
    """Return what was observed under some conditions, and differences between them.

    Args:
        observed: An array for each condition, all alike.
        differences: Pairs of conditions; (a, b) is added under the name ``a minus b``.
    """
    added = {f"{a}{_MINUS}{b}": observed[a] - observed[b] for a, b in differences}
    return {**observed, **added}


def is_difference(condition: str) -> bool:
    """Return whether a condition is a difference between two others."""
    return _MINUS in condition


def score_rows(
    task: str,
    condition: str,
    measures: Sequence[str],
    estimates: Estimates,
    chance: NDArray[np.floating],
) -> list[Score]:
    """Return a row for each of M measures; those nothing was observed for are left out.

    The chance of a difference is 0, whatever is given.
    """
    chance = np.zeros_like(chance) if is_difference(condition) else chance
    return [
        Score(
            task,
            condition,
            measure,
            float(estimates.value[number]),
            float(estimates.low[number]),
            float(estimates.high[number]),
            float(chance[number]),
            int(estimates.images[number]),
        )
        for number, measure in enumerate(measures)
        if estimates.images[number]
    ]


def score_table(scores: Iterable[Score]) -> pd.DataFrame:
    """Return scores with the fields of :class:`Score` as columns."""
    return pd.DataFrame(list(scores), columns=list(Score._fields))

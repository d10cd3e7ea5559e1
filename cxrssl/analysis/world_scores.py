"""Means over images with bootstrap intervals, and the table they stand in."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Estimates", "Score", "bootstrap", "group_means", "score_rows", "score_table"]

_REPLICATES = 1000
_LEVELS = (0.025, 0.975)


class Estimates(NamedTuple):
    """Means with their 95 % intervals, three arrays alike; NaN where nothing was observed."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def at(self, place: int) -> "Estimates":
        """Return the estimates at a place of the first axis."""
        return Estimates(self.value[place], self.low[place], self.high[place])


class Score(NamedTuple):
    """One row of the table."""

    task: str
    condition: str
    measure: str
    value: float
    low: float
    high: float
    chance: float


def bootstrap(
    sums: NDArray[np.floating], counts: NDArray[np.floating], rng: np.random.Generator
) -> Estimates:
    """Return ``sums / counts`` over all images, with percentile intervals of 1000 resamples.

    Whole images are drawn, since the tokens of one image are not independent.

    Args:
        sums: Sum of what was observed in each of n images, (n, ...).
        counts: Number of observations in each, of the same shape.
        rng: Source of the resamples.

    Returns:
        Means and intervals of shape (...).
    """
    images, shape = len(sums), sums.shape[1:]
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=_REPLICATES)
    sums, counts = sums.reshape(images, -1), counts.reshape(images, -1)
    seen = counts.sum(0) > 0
    value, low, high = np.full((3, len(seen)), np.nan)
    value[seen] = sums[:, seen].sum(0) / counts[:, seen].sum(0)
    totals = drawn @ counts[:, seen]
    # A resample may miss all images with an observation; it then has no say.
    missing = np.full(totals.shape, np.nan)
    means = np.divide(drawn @ sums[:, seen], totals, out=missing, where=totals > 0)
    low[seen], high[seen] = np.nanquantile(means, _LEVELS, axis=0)
    return Estimates(*(numbers.reshape(shape) for numbers in (value, low, high)))


def group_means(
    values: NDArray[np.floating],
    groups: NDArray[np.bool_],
    image: NDArray[np.integer],
    rng: np.random.Generator,
) -> Estimates:
    """Return the means of M values over groups of patches, (G, M).

    Args:
        values: Of each patch of n crops, (n, N, M).
        groups: Which patches are in each of G groups, (G, n, N); groups may overlap.
        image: Number of the image each crop is from, (n,), from 0.
        rng: Source of the resamples.
    """
    sums = np.einsum("gnk,nkm->ngm", groups, values)
    counts = np.broadcast_to(groups.sum(-1).T[..., None], sums.shape)
    of_images = np.zeros((2, image.max() + 1, *sums.shape[1:]))
    np.add.at(of_images[0], image, sums)
    np.add.at(of_images[1], image, counts)
    return bootstrap(of_images[0], of_images[1], rng)


def score_rows(
    task: str,
    condition: str,
    measures: Sequence[str],
    estimates: Estimates,
    chance: NDArray[np.floating],
) -> list[Score]:
    """Return a row for each of M measures; those nothing was observed for are left out."""
    return [
        Score(task, condition, measure, *map(float, numbers))
        for measure, *numbers in zip(measures, *estimates, chance, strict=True)
        if not np.isnan(numbers[0])
    ]


def score_table(scores: Iterable[Score]) -> pd.DataFrame:
    """Return scores with the columns task, condition, measure, value, low, high, chance."""
    return pd.DataFrame(list(scores), columns=list(Score._fields))

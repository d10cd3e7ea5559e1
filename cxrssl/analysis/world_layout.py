"""Layout awareness: does a world model know what lies where beyond what it sees?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrssl.analysis.world_model import PredictsWorld, need_images
from cxrssl.analysis.world_pairs import LAYOUT_CONDITIONS, observe_pairs
from cxrssl.analysis.world_retrieval import RETRIEVAL
from cxrssl.analysis.world_scores import Estimates, Score, group_means, score_rows, score_table
from cxrssl.errors import InputError

__all__ = ["PLACES", "LayoutAwareness", "layout_awareness"]

PLACES = ("anywhere", "inside", "outside")

_STREAM = 2
_OFFSET_BIN = 0.25


@dataclass(frozen=True)
class LayoutAwareness:
    """How well the tokens of one crop are predicted from another crop of the same image.

    Every mapping has an entry ``offset``, where the model is told where the predicted crop lies,
    and an entry ``no offset``, where it predicts in the context's own frame.

    Attributes:
        images: Number of images.
        pairs: Pairs of crops of each image.
        error: Mean squared error over all patches, (1,).
        constant_error: The same of the best constant prediction, the mean of all tokens.
        distance_edges: Edges (E + 1,) of bins of the distance between a patch's centre and the
            context crop, in patches, negative inside.
        error_by_distance: Mean squared error in each bin, (E,).
        patches_by_distance: Patches in each bin, (E,).
        offset_edges: Edges (F + 1,) of bins of the distance between the crops' centres, in crop
            sides.
        error_by_offset: Mean squared error in each bin, (F,).
        retrieval: The measures `RETRIEVAL` of the patches that are at each of `PLACES` with
            respect to the context crop, (3, 3).
        retrieval_chance: The same of a patch drawn at random, (3, 3).
    """

    images: int
    pairs: int
    error: Mapping[str, Estimates]
    constant_error: float
    distance_edges: NDArray[np.float64]
    error_by_distance: Mapping[str, Estimates]
    patches_by_distance: NDArray[np.int64]
    offset_edges: NDArray[np.float64]
    error_by_offset: Mapping[str, Estimates]
    retrieval: Mapping[str, Estimates]
    retrieval_chance: NDArray[np.float64]

    def table(self) -> pd.DataFrame:
        """Return retrieval and errors as rows of the table all tasks share."""
        return score_table(row for condition in self.error for row in self._rows(condition))

    def _rows(self, condition: str) -> Iterator[Score]:
        for number, place in enumerate(PLACES):
            where = "" if place == "anywhere" else f" {place}"
            yield from score_rows(
                "layout",
                condition,
                [name + where for name in RETRIEVAL],
                self.retrieval[condition].at(number),
                self.retrieval_chance[number],
            )
        for measures, errors in (
            (["error"], self.error),
            (_names("distance", self.distance_edges, "g"), self.error_by_distance),
            (_names("offset", self.offset_edges, ".2f"), self.error_by_offset),
        ):
            chance = np.full(len(measures), self.constant_error)
            yield from score_rows("layout", condition, measures, errors[condition], chance)


@torch.no_grad()
def layout_awareness(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    *,
    pairs: int = 4,
    seed: int = 0,
    batch_size: int = 64,
) -> LayoutAwareness:
    """Return how well all patches of one random crop are predicted from the whole of another.

    The crops are drawn as in training, mirrored ones included, and are not distorted.

    Args:
        model: The world model, in evaluation mode.
        images: Radiographs, each (H, W) uint8.
        pairs: Pairs of crops of each image.
        seed: Seed of all draws. The crops of an image depend on its place in ``images`` and on
            nothing else.
        batch_size: Pairs in one pass.

    Raises:
        InputError: If there is no image, or a number is too small.
        ValueError: If the model's tokens are not finite.
    """
    need_images(images)
    if pairs < 1 or batch_size < 1:
        raise InputError(f"pairs and batch_size must be at least 1, got {pairs} and {batch_size}")
    seen = observe_pairs(model, images, pairs, (seed, _STREAM), batch_size)
    rng = np.random.default_rng((seed, _STREAM, 0, 1))
    everything = np.ones((1, *seen.outside.shape), dtype=np.bool_)
    by_distance, distance_edges = _bins(seen.outside, 1.0)
    # Two crops in the same place belong to the first bin, too.
    length = np.maximum(seen.length, np.finfo(np.float64).tiny)
    by_length, offset_edges = _bins(length[:, None], _OFFSET_BIN)
    by_length = np.broadcast_to(by_length, (len(by_length), *seen.outside.shape))
    by_place = np.stack([everything[0], seen.outside <= 0, seen.outside > 0])

    def errors(groups: NDArray[np.bool_]) -> dict[str, Estimates]:
        return {
            name: Estimates(
                *(
                    numbers[:, 0]
                    for numbers in group_means(error[..., None], groups, seen.image, rng)
                )
            )
            for name, error in seen.error.items()
        }

    chance = np.broadcast_to(seen.chance, (*seen.outside.shape, len(RETRIEVAL)))
    return LayoutAwareness(
        images=len(images),
        pairs=pairs,
        error=errors(everything),
        constant_error=seen.constant_error,
        distance_edges=distance_edges,
        error_by_distance=errors(by_distance),
        patches_by_distance=by_distance.sum((1, 2)),
        offset_edges=offset_edges,
        error_by_offset=errors(by_length),
        retrieval={
            name: group_means(seen.found[name], by_place, seen.image, rng)
            for name in LAYOUT_CONDITIONS
        },
        retrieval_chance=group_means(chance, by_place, seen.image, rng).value,
    )


def _bins(
    values: NDArray[np.floating], width: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which values (...) are in each of G bins, (G, ...), and the bins' edges (G + 1,).

    A value on an edge belongs to the bin below, as a patch on the border belongs to the inside.
    """
    number = np.ceil(values / width).astype(np.intp)
    numbers = np.arange(number.min(), number.max() + 1)
    inside: NDArray[np.bool_] = number == numbers.reshape(-1, *[1] * values.ndim)
    return inside, np.append(numbers[0] - 1, numbers) * width


def _names(what: str, edges: NDArray[np.float64], style: str) -> list[str]:
    return [f"error at {what} {low:{style}} to {high:{style}}" for low, high in pairwise(edges)]

"""Layout awareness: does a world model know what lies where beyond what it sees?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cxrssl.analysis.world_bins import BinnedError, Bins
from cxrssl.analysis.world_model import PredictsWorld, need_images
from cxrssl.analysis.world_pairs import observe_pairs
from cxrssl.analysis.world_retrieval import ERROR, MEASURES
from cxrssl.analysis.world_scores import (
    Bootstrap,
    Estimates,
    Score,
    score_rows,
    score_table,
    with_differences,
)
from cxrssl.errors import InputError

__all__ = ["PLACES", "LayoutAwareness", "layout_awareness"]

PLACES = ("anywhere", "inside", "outside")

_DIFFERENCES = (("offset", "other offset"), ("offset", "other image"))
_STREAM = 2
_OFFSET_BIN = 0.25


@dataclass(frozen=True)
class LayoutAwareness:
    """How well the tokens of one crop are predicted from another crop of the same image.

    Every mapping has these entries:

    - ``offset``: the model is told where the predicted crop lies;
    - ``other offset``: it is told the place of a crop of another image;
    - ``other image``: it is told the place, but sees a crop of another image;
    - ``own frame``: it is told the places of the target's own crop, as if the two crops were one.
      Target tokens encode these places, so that this is no lack of knowledge;
    - ``position alone``: the mean token at the same place of the target crops of all other images,
      for which no model is needed;
    - ``offset minus other offset`` and ``offset minus other image``: the differences.

    Attributes:
        images: Number of images.
        pairs: Pairs of crops of each image.
        scores: The measures `MEASURES` of the patches that are at each of `PLACES` with respect to
            the context crop, (3, 4).
        chance: The same of a patch drawn at random, and the error of the mean of all tokens,
            (3, 4).
        by_distance: Error by the distance between a patch's centre and the context crop, in
            patches, negative inside.
        by_offset: Error by the distance between the crops' centres, in crop sides.
    """

    images: int
    pairs: int
    scores: Mapping[str, Estimates]
    chance: NDArray[np.float64]
    by_distance: BinnedError
    by_offset: BinnedError

    def table(self) -> pd.DataFrame:
        """Return all measures as rows of the table all tasks share."""
        return score_table(row for condition in self.scores for row in self._rows(condition))

    def _rows(self, condition: str) -> Iterator[Score]:
        for number, place in enumerate(PLACES):
            where = "" if place == "anywhere" else f" {place}"
            yield from score_rows(
                "layout",
                condition,
                [name + where for name in MEASURES],
                self.scores[condition].at(number),
                self.chance[number],
            )
        for name, style, binned in (
            ("distance", "g", self.by_distance),
            ("offset", ".2f", self.by_offset),
        ):
            measures = [
                f"error at {name} {low:{style}} to {high:{style}}" for low, high in binned.bounds()
            ]
            yield from score_rows(
                "layout", condition, measures, binned.error[condition], binned.mean_token
            )


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

    The crops are drawn as in training, mirrored ones included, and are not distorted. Since a
    target token carries its place in its own crop, it can be found without a look at the image:
    what a model knows is the difference to what it predicts from another image, or when it is told
    another place.

    Args:
        model: The world model, in evaluation mode.
        images: At least two radiographs, each (H, W) uint8.
        pairs: Pairs of crops of each image.
        seed: Seed of all draws. The crops of an image depend on its place in ``images`` and on
            nothing else.
        batch_size: Crops in one pass, all of one image.

    Raises:
        InputError: If there are fewer than two images, or a number is too small.
        ValueError: If the model's tokens are not finite.
    """
    need_images(images)
    if pairs < 1 or batch_size < 1:
        raise InputError(f"pairs and batch_size must be at least 1, got {pairs} and {batch_size}")
    seen = observe_pairs(model, images, pairs, (seed, _STREAM), batch_size)
    bootstrap = Bootstrap(len(images), np.random.default_rng((seed, _STREAM, 0, 1)))
    scores = with_differences(seen.scores, _DIFFERENCES)
    inside = seen.outside <= 0
    places = np.stack([np.ones_like(inside), inside, ~inside])
    # Two crops in the same place belong to the first bin, too.
    length = np.maximum(seen.length, np.finfo(np.float64).tiny)

    def binned(values: NDArray[np.float64], width: float) -> BinnedError:
        bins = Bins(values, width)
        errors = {name: each[..., ERROR:] for name, each in scores.items()}
        chance = bootstrap.group_means(seen.chance[..., ERROR:], bins.groups, seen.image)
        return BinnedError(
            edges=bins.edges,
            error={
                name: bootstrap.group_means(each, bins.groups, seen.image).at(slice(None), 0)
                for name, each in errors.items()
            },
            mean_token=chance.value[:, 0],
            patches=bins.groups.sum((1, 2)),
            images=chance.images[:, 0],
        )

    return LayoutAwareness(
        images=len(images),
        pairs=pairs,
        scores={
            name: bootstrap.group_means(each, places, seen.image) for name, each in scores.items()
        },
        chance=bootstrap.group_means(seen.chance, places, seen.image).value,
        by_distance=binned(seen.outside, 1.0),
        by_offset=binned(np.broadcast_to(length[:, None], inside.shape), _OFFSET_BIN),
    )

"""Predictions of one crop from another, patch by patch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.world_geometry import offset_lengths, outside_distances, place_patches
from cxrssl.analysis.world_model import CropPair, PredictsWorld, as_batch, grid_side
from cxrssl.analysis.world_retrieval import retrieve

__all__ = ["LAYOUT_CONDITIONS", "PairObservations", "observe_pairs"]

LAYOUT_CONDITIONS = ("offset", "no offset")


@dataclass(frozen=True)
class PairObservations:
    """What n predictions of one crop's N patches from another crop were worth.

    Mappings have an entry for each of `LAYOUT_CONDITIONS`.

    Attributes:
        image: Image of each pair, (n,).
        outside: Distance of each patch to the context crop in patches, (n, N), negative inside.
        length: Distance between the crops' centres in crop sides, (n,).
        error: Mean squared error over the D numbers of a token, (n, N).
        found: Measures of `retrieve` (n, N, 3).
        chance: The same of a random patch, (N, 3).
        constant_error: Mean squared error of the mean of all target tokens.
    """

    image: NDArray[np.intp]
    outside: NDArray[np.float64]
    length: NDArray[np.float64]
    error: Mapping[str, NDArray[np.float32]]
    found: Mapping[str, NDArray[np.float64]]
    chance: NDArray[np.float64]
    constant_error: float


def observe_pairs(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    pairs: int,
    seed: Sequence[int],
    batch_size: int,
) -> PairObservations:
    """Predict all patches of one crop from the whole of another, told its place and not.

    Args:
        model: The world model.
        images: Radiographs, each (H, W) uint8.
        pairs: Pairs of crops of each image.
        seed: Seed of the crops; an image's draws come from (*seed, its number).
        batch_size: Pairs in one pass.
    """
    side = grid_side(model.views)
    every = torch.arange(side * side)
    drawn = _draw(model, images, pairs, seed)
    offsets: list[NDArray[np.float32]] = []
    errors: dict[str, list[Tensor]] = {name: [] for name in LAYOUT_CONDITIONS}
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in LAYOUT_CONDITIONS}
    spread = _Spread()
    while batch := list(islice(drawn, batch_size)):
        offset = np.stack([pair.offset[1] for pair in batch])
        offsets.append(offset)
        context = as_batch(model, [pair.crops[0] for pair in batch])
        tokens = model.targets(as_batch(model, [pair.crops[1] for pair in batch])).float()
        spread.add(tokens)
        given = {"offset": torch.from_numpy(offset).to(context.device), "no offset": None}
        for name in LAYOUT_CONDITIONS:
            predicted = model.predict(context, offset=given[name]).float()
            errors[name].append((predicted - tokens).square().mean(-1).cpu())
            retrieved = retrieve(predicted, tokens, every, side)
            found[name].append(retrieved.found)
            chance = retrieved.chance
    offset = np.concatenate(offsets)
    return PairObservations(
        image=np.repeat(np.arange(len(images)), pairs),
        outside=outside_distances(*place_patches(offset, side), side),
        length=offset_lengths(offset),
        error={name: torch.cat(parts).numpy() for name, parts in errors.items()},
        found={name: np.concatenate(parts) for name, parts in found.items()},
        chance=chance,
        constant_error=spread.variance(),
    )


class _Spread:
    """The variance of tokens about their mean, gathered batch by batch."""

    def __init__(self) -> None:
        self._tokens = 0
        self._sum: NDArray[np.float64] = np.zeros(1)
        self._squares = 0.0

    def add(self, tokens: Tensor) -> None:
        """Take up tokens (B, N, D)."""
        numbers = tokens.flatten(0, 1).cpu().numpy().astype(np.float64)
        self._tokens += len(numbers)
        self._sum = self._sum + numbers.sum(0)
        self._squares += float(np.square(numbers).mean(1).sum())

    def variance(self) -> float:
        """Return the mean of the D variances."""
        mean = self._sum / self._tokens
        return self._squares / self._tokens - float(np.square(mean).mean())


def _draw(
    model: PredictsWorld, images: Sequence[NDArray[np.uint8]], pairs: int, seed: Sequence[int]
) -> Iterator[CropPair]:
    for number, image in enumerate(images):
        rng = np.random.default_rng((*seed, number))
        for _ in range(pairs):
            yield model.views.crop_pair(image, rng)

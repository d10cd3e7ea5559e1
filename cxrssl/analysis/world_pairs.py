"""Predictions of one crop from another, patch by patch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.world_baseline import TokenMeans
from cxrssl.analysis.world_geometry import offset_lengths, outside_distances, place_patches
from cxrssl.analysis.world_model import CropPair, PredictsWorld, as_batch, grid_side
from cxrssl.analysis.world_retrieval import judge, judge_chance

__all__ = ["LAYOUT_CONDITIONS", "PairObservations", "observe_pairs"]

LAYOUT_CONDITIONS = ("offset", "other offset", "other image", "own frame", "position alone")


@dataclass(frozen=True)
class PairObservations:
    """What m predictions of one crop's N patches from another crop were worth.

    Attributes:
        image: Image of each pair, (m,).
        outside: Distance of each patch to the context crop in patches, (m, N), negative inside.
        length: Distance between the crops' centres in crop sides, (m,).
        scores: Measures of `judge` (m, N, 4) for each of `LAYOUT_CONDITIONS`.
        chance: Those of `judge_chance`, (m, N, 4).
    """

    image: NDArray[np.intp]
    outside: NDArray[np.float64]
    length: NDArray[np.float64]
    scores: Mapping[str, NDArray[np.float64]]
    chance: NDArray[np.float64]


def observe_pairs(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    pairs: int,
    seed: Sequence[int],
    batch_size: int,
) -> PairObservations:
    """Predict all patches of one crop from the whole of another, under every condition.

    Args:
        model: The world model.
        images: At least two radiographs, each (H, W) uint8.
        pairs: Pairs of crops of each image.
        seed: Seed of the crops; an image's draws come from (*seed, its number).
        batch_size: Crops in one pass.
    """
    observer = _Observer(model, pairs, seed, batch_size)
    means, offsets = TokenMeans(), []
    for number, image in enumerate(images):
        drawn = observer.draw(image, number)
        offsets.append(np.stack([pair.offset[1] for pair in drawn]))
        means.add(observer.targets(drawn))
    other = observer.contexts(observer.draw(images[-1], len(images) - 1))
    observed = []
    for number, image in enumerate(images):
        # Drawn again rather than kept, tokens too, so that memory does not grow with the images.
        drawn = observer.draw(image, number)
        context = observer.contexts(drawn)
        tokens = observer.targets(drawn)
        predicted = observer.predict(context, other, offsets[number], offsets[number - 1])
        predicted["position alone"] = means.without(tokens).expand_as(tokens)
        observed.append(_judge_all(predicted, tokens, means.overall(), observer.side))
        other = context
    offset = np.concatenate(offsets)
    scores = {name: np.concatenate([each[name] for each in observed]) for name in observed[0]}
    return PairObservations(
        image=np.repeat(np.arange(len(images)), pairs),
        outside=outside_distances(*place_patches(offset, observer.side), observer.side),
        length=offset_lengths(offset),
        chance=scores.pop("chance"),
        scores={name: scores[name] for name in LAYOUT_CONDITIONS},
    )


class _Observer:
    """Draws the pairs of an image and asks a model about them, some at a time."""

    def __init__(
        self, model: PredictsWorld, pairs: int, seed: Sequence[int], batch_size: int
    ) -> None:
        self._model = model
        self._seed = seed
        self._batches = [slice(n, min(n + batch_size, pairs)) for n in range(0, pairs, batch_size)]
        self._pairs = pairs
        self.side = grid_side(model.views)

    def draw(self, image: NDArray[np.uint8], number: int) -> list[CropPair]:
        """Return the pairs of an image, always the same ones."""
        rng = np.random.default_rng((*self._seed, number))
        return [self._model.views.crop_pair(image, rng) for _ in range(self._pairs)]

    def targets(self, drawn: Sequence[CropPair]) -> Tensor:
        """Return the target tokens (P, N, D) of the crops to be predicted."""
        return self._encode(self._model.targets, [pair.crops[1] for pair in drawn])

    def contexts(self, drawn: Sequence[CropPair]) -> Tensor:
        """Return the context tokens (P, N, d) of the crops that are seen."""
        return self._encode(self._model.encode_context, [pair.crops[0] for pair in drawn])

    def predict(
        self,
        context: Tensor,
        other: Tensor,
        offset: NDArray[np.float32],
        wrong: NDArray[np.float32],
    ) -> dict[str, Tensor]:
        """Return predicted tokens (P, N, D) for each condition that asks the model.

        Args:
            context: Context tokens (P, N, d) of the pairs.
            other: Those of another image's pairs.
            offset: Places (P, 4) of the crops to be predicted.
            wrong: Those of another image's pairs. They are whole rows, so that whether the crop is
                mirrored is what the row says.
        """
        told, mistold = (torch.from_numpy(each).to(context.device) for each in (offset, wrong))
        return {
            "offset": self._predict(context, told),
            "other offset": self._predict(context, mistold),
            "other image": self._predict(other, told),
            "own frame": self._predict(context, None),
        }

    def _encode(
        self, encode: Callable[[Tensor], Tensor], crops: Sequence[NDArray[np.uint8]]
    ) -> Tensor:
        return torch.cat([encode(as_batch(self._model, crops[batch])) for batch in self._batches])

    def _predict(self, context: Tensor, offset: Tensor | None) -> Tensor:
        parts = [
            self._model.predict(context[batch], offset=None if offset is None else offset[batch])
            for batch in self._batches
        ]
        return torch.cat(parts)


def _judge_all(
    predicted: Mapping[str, Tensor], tokens: Tensor, mean: Tensor, side: int
) -> dict[str, NDArray[np.float64]]:
    """Return measures (P, N, 4) of predictions (P, N, D) for each condition and for chance."""
    every = torch.arange(side * side)
    # Crop by crop: the distances between all tokens of many crops would fill the memory.
    judged = {
        name: np.stack([judge(*pair, every, side) for pair in zip(each, tokens, strict=True)])
        for name, each in predicted.items()
    }
    chance = np.stack([judge_chance(each, mean, every, side) for each in tokens])
    return {**judged, "chance": chance}

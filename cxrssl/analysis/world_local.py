"""Local structure: does a world model know what a masked part of a radiograph looks like?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.world_baseline import TokenMeans
from cxrssl.analysis.world_model import (
    PredictsWorld,
    as_batch,
    draw_masks,
    grid_side,
    need_images,
    whole_image,
)
from cxrssl.analysis.world_retrieval import MEASURES, feature_distances, judge, judge_chance
from cxrssl.analysis.world_scores import (
    Bootstrap,
    Estimates,
    score_rows,
    score_table,
    with_differences,
)
from cxrssl.errors import InputError

__all__ = ["FillIn", "LocalStructure", "local_structure"]

_DIFFERENCES = (("masked", "other image"),)
_STREAM = 3


@dataclass(frozen=True)
class FillIn:
    """A radiograph whose masked patches were looked up in other radiographs.

    Attributes:
        image: The whole image, (S, S) uint8.
        seen: Patches the model saw, (G, G).
        masked: Patches it predicted, (G, G).
        filled: Patches of other images whose tokens are nearest to the predicted ones, each in its
            place, (S, S) uint8; 0 outside ``masked``.
    """

    image: NDArray[np.uint8]
    seen: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    filled: NDArray[np.uint8]


@dataclass(frozen=True)
class LocalStructure:
    """How well masked patches are found among the patches of their own image.

    Attributes:
        images: Number of images.
        scores: The measures `MEASURES`, (4,), of each condition: ``masked``, predicted from the
            rest of the image; ``other image``, from the same patches of another one; ``position
            alone``, the mean token at the same place of all other images; and the difference
            ``masked minus other image``.
        chance: The same of a patch drawn at random, and the error of the mean of all tokens, (4,).
        examples: Images filled in from others.
    """

    images: int
    scores: Mapping[str, Estimates]
    chance: NDArray[np.float64]
    examples: tuple[FillIn, ...]

    def table(self) -> pd.DataFrame:
        """Return the measures as rows of the table all tasks share."""
        return score_table(
            row
            for condition, scores in self.scores.items()
            for row in score_rows("local", condition, MEASURES, scores, self.chance)
        )


@torch.no_grad()
def local_structure(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    *,
    examples: int = 4,
    seed: int = 0,
) -> LocalStructure:
    """Return how well the masked patches of whole images are predicted from what is left of them.

    One mask an image is drawn as in training; nothing is distorted. Since a target token carries
    its own place, it can be found without a look at the image: what a model knows of the image is
    the difference to what it predicts from another one, through the same mask.

    Args:
        model: The world model, in evaluation mode.
        images: At least two radiographs, each (H, W) uint8.
        examples: Images, evenly spaced, to fill in with the nearest patches of all the others.
        seed: Seed of all draws. The mask of an image depends on its place in ``images`` and on
            nothing else.

    Raises:
        InputError: If there are fewer than two images, or a number is too small.
        ValueError: If the model's tokens are not finite.
    """
    need_images(images)
    if examples < 0:
        raise InputError(f"examples must not be negative, got {examples}")
    whole = [whole_image(model.views, image) for image in images]
    asked = [_Asked(model, seed, number) for number in range(len(images))]
    chosen = np.linspace(0, len(images) - 1, min(examples, len(images))).astype(int).tolist()
    fills = {n: _Fill(asked[n], asked[n].predict(whole[n]), whole[n]) for n in chosen}
    means = TokenMeans()
    for number, image in enumerate(whole):
        tokens = model.targets(as_batch(model, [image]))
        means.add(tokens)
        for other, fill in fills.items():
            if other != number:
                fill.offer(tokens[0], image)
    observed = [
        _observe(each, whole[number], whole[number - 1], fills.get(number), means)
        for number, each in enumerate(asked)
    ]
    bootstrap = Bootstrap(len(images), np.random.default_rng((seed, _STREAM, 0, 1)))
    counts = np.array([[len(each.masked)] * len(MEASURES) for each in asked])
    sums = {name: np.stack([each[name].sum(0) for each in observed]) for name in observed[0]}
    chance = sums.pop("chance").sum(0) / counts.sum(0)
    return LocalStructure(
        images=len(images),
        scores={
            name: bootstrap.means(each, counts)
            for name, each in with_differences(sums, _DIFFERENCES).items()
        },
        chance=chance,
        examples=tuple(fill.result() for fill in fills.values()),
    )


class _Asked:
    """What is asked about one image: the patches that are seen (Kc,) and masked (Kt,)."""

    def __init__(self, model: PredictsWorld, seed: int, number: int) -> None:
        self.model = model
        self.side = grid_side(model.views)
        self.seen, self.masked = draw_masks(model, np.random.default_rng((seed, _STREAM, number)))

    def predict(self, image: NDArray[np.uint8]) -> Tensor:
        """Return tokens (Kt, D) predicted from the seen patches of an image (S, S)."""
        context = self.model.encode_context(as_batch(self.model, [image]), self.seen[None])
        return self.model.predict(context, target_index=self.masked[None])[0]


def _observe(
    asked: _Asked,
    image: NDArray[np.uint8],
    other: NDArray[np.uint8],
    fill: "_Fill | None",
    means: TokenMeans,
) -> dict[str, NDArray[np.float64]]:
    """Return `MEASURES` (Kt, 4) of each condition and of chance."""
    tokens = asked.model.targets(as_batch(asked.model, [image]))
    masked, side = asked.masked, asked.side
    predicted = {
        "masked": asked.predict(image) if fill is None else fill.predicted,
        "other image": asked.predict(other),
        "position alone": means.without(tokens)[masked],
    }
    observed = {name: judge(each, tokens[0], masked, side) for name, each in predicted.items()}
    return {**observed, "chance": judge_chance(tokens[0], means.overall(), masked, side)}


class _Fill:
    """Looks for the nearest patches in one image after the other, so that none must be kept."""

    def __init__(self, asked: _Asked, predicted: Tensor, image: NDArray[np.uint8]) -> None:
        self.predicted = predicted
        self._image = image
        self._side = asked.side
        self._seen, self._masked = asked.seen.cpu().numpy(), asked.masked.cpu().numpy()
        self._nearest = np.full(len(self._masked), np.inf)
        self._patches = _patches(image, self._side)[self._masked]

    def offer(self, tokens: Tensor, image: NDArray[np.uint8]) -> None:
        """Take the patches of an image (S, S) with tokens (N, D) that are nearer than before."""
        distances, places = feature_distances(self.predicted, tokens).min(-1)
        nearer = distances.numpy() < self._nearest
        self._nearest[nearer] = distances.numpy()[nearer]
        self._patches[nearer] = _patches(image, self._side)[places.numpy()[nearer]]

    def result(self) -> FillIn:
        """Return the image with what was found."""
        grid = np.zeros((2, self._side**2), dtype=np.bool_)
        grid[0, self._seen] = grid[1, self._masked] = True
        blank = np.zeros_like(_patches(self._image, self._side))
        blank[self._masked] = self._patches
        return FillIn(
            image=self._image,
            seen=grid[0].reshape(self._side, self._side),
            masked=grid[1].reshape(self._side, self._side),
            filled=_assemble(blank, self._side),
        )


def _patches(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the patches (N, p, p) of an image (S, S), row by row."""
    p = len(image) // side
    return image.reshape(side, p, side, p).swapaxes(1, 2).reshape(-1, p, p)


def _assemble(patches: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the image (S, S) of patches (N, p, p)."""
    p = patches.shape[-1]
    return patches.reshape(side, side, p, p).swapaxes(1, 2).reshape(side * p, side * p)

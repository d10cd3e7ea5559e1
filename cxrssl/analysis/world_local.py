"""Local structure: does a world model know what a masked part of a radiograph looks like?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.world_model import (
    PredictsWorld,
    as_batch,
    draw_masks,
    grid_side,
    need_images,
    whole_image,
)
from cxrssl.analysis.world_retrieval import RETRIEVAL, feature_distances, retrieve
from cxrssl.analysis.world_scores import Estimates, bootstrap, score_rows, score_table
from cxrssl.errors import InputError

__all__ = ["FillIn", "LocalStructure", "local_structure"]

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
        retrieval: The measures `RETRIEVAL`, (3,).
        chance: The same of a patch drawn at random, (3,).
        examples: Images filled in from others.
    """

    images: int
    retrieval: Estimates
    chance: NDArray[np.float64]
    examples: tuple[FillIn, ...]

    def table(self) -> pd.DataFrame:
        """Return the measures as rows of the table all tasks share."""
        return score_table(score_rows("local", "masked", RETRIEVAL, self.retrieval, self.chance))


@torch.no_grad()
def local_structure(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    *,
    examples: int = 4,
    seed: int = 0,
) -> LocalStructure:
    """Return how well the masked patches of whole images are predicted from what is left of them.

    One mask an image is drawn as in training; nothing is distorted.

    Args:
        model: The world model, in evaluation mode.
        images: Radiographs, each (H, W) uint8.
        examples: Images, evenly spaced, to fill in with the nearest patches of all the others;
            none where there are no others.
        seed: Seed of all draws. The mask of an image depends on its place in ``images`` and on
            nothing else.

    Raises:
        InputError: If there is no image, or a number is too small.
        ValueError: If the model's tokens are not finite.
    """
    need_images(images)
    if examples < 0:
        raise InputError(f"examples must not be negative, got {examples}")
    side = grid_side(model.views)
    whole = [whole_image(model.views, image) for image in images]
    chosen = np.linspace(0, len(images) - 1, min(examples, len(images))).astype(int).tolist()
    fills = {n: _Fill(model, whole[n], seed, n) for n in chosen if len(images) > 1}
    sums = np.zeros((2, len(images), len(RETRIEVAL)))
    counts = np.zeros((len(images), len(RETRIEVAL)))
    for number, image in enumerate(whole):
        _, masked, predicted = _predict_masked(model, image, seed, number)
        tokens = model.targets(as_batch(model, [image]))[0]
        retrieved = retrieve(predicted, tokens, masked, side)
        sums[:, number] = retrieved.found.sum(0), retrieved.chance.sum(0)
        counts[number] = len(masked)
        for other, fill in fills.items():
            if other != number:
                fill.offer(tokens, image)
    rng = np.random.default_rng((seed, _STREAM, 0, 1))
    return LocalStructure(
        images=len(images),
        retrieval=bootstrap(sums[0], counts, rng),
        chance=sums[1].sum(0) / counts.sum(0),
        examples=tuple(fill.result() for fill in fills.values()),
    )


def _predict_masked(
    model: PredictsWorld, image: NDArray[np.uint8], seed: int, number: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is seen (Kc,) and masked (Kt,) of an image (S, S), and the prediction (Kt, D)."""
    seen, masked = draw_masks(model, np.random.default_rng((seed, _STREAM, number)))
    predicted = model.predict(
        as_batch(model, [image]), context_index=seen[None], target_index=masked[None]
    )
    return seen, masked, predicted[0]


class _Fill:
    """Looks for the nearest patches in one image after the other, so that none must be kept."""

    def __init__(
        self, model: PredictsWorld, image: NDArray[np.uint8], seed: int, number: int
    ) -> None:
        seen, masked, self._predicted = _predict_masked(model, image, seed, number)
        self._image = image
        self._side = grid_side(model.views)
        self._seen, self._masked = seen.cpu().numpy(), masked.cpu().numpy()
        self._nearest = np.full(len(masked), np.inf)
        self._patches = _patches(image, self._side)[self._masked]

    def offer(self, tokens: Tensor, image: NDArray[np.uint8]) -> None:
        """Take the patches of an image (S, S) with tokens (N, D) that are nearer than before."""
        distances, places = feature_distances(self._predicted, tokens).min(-1)
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

"""Domain sensitivity: does a world model undo the very distortion it is told of?"""

from collections.abc import Mapping, Sequence
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
    need_images,
    whole_image,
)
from cxrssl.analysis.world_retrieval import feature_distances, hits
from cxrssl.analysis.world_scores import Estimates, bootstrap, score_rows, score_table
from cxrssl.errors import InputError

__all__ = ["DomainSensitivity", "domain_sensitivity"]

CONDITIONS = ("true action", "no action", "other action")
RANKS = (1, 3, 5)

_STREAM = 1


@dataclass(frozen=True)
class DomainSensitivity:
    """Recall of the right version of an image among versions that differ in grey values only.

    Attributes:
        images: Number of images.
        candidates: Versions of each image.
        ranks: Ranks k that count as a hit, (K,).
        recall: Recall@k, (K,), of each of `CONDITIONS`.
        chance: Recall@k of random guesses, (K,).
    """

    images: int
    candidates: int
    ranks: tuple[int, ...]
    recall: Mapping[str, Estimates]
    chance: NDArray[np.float64]

    def table(self) -> pd.DataFrame:
        """Return the recalls as rows of the table all tasks share."""
        measures = [f"recall@{k}" for k in self.ranks]
        return score_table(
            row
            for condition, recall in self.recall.items()
            for row in score_rows("domain", condition, measures, recall, self.chance)
        )


@torch.no_grad()
def domain_sensitivity(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    *,
    candidates: int = 64,
    seed: int = 0,
    batch_size: int = 64,
) -> DomainSensitivity:
    """Return how well predictions tell apart versions of one image (CheXWorld, arXiv 2504.13820).

    Each image is made into ``candidates`` clean versions y_i of other brightness and contrast, and
    each of these is distorted into x_i by an action a_i. From x_i the model predicts tokens of y_i;
    all clean versions are ranked by their squared distance to the prediction. The action given is
    the true one, that of doing nothing, or another version's: what a model knows of actions is the
    difference. All three see the same versions, under one mask an image as in training, and are
    compared on the masked patches.

    Args:
        model: The world model, in evaluation mode.
        images: Radiographs, each (H, W) uint8.
        candidates: Versions of each image, at least 2.
        seed: Seed of all draws. The draws of an image depend on its place in ``images`` and on
            nothing else.
        batch_size: Versions in one pass.

    Raises:
        InputError: If there is no image, or a number is too small.
        ValueError: If the model's tokens are not finite.
    """
    need_images(images)
    if candidates < 2 or batch_size < 1:
        raise InputError(
            "candidates must be at least 2 and batch_size at least 1, "
            f"got {candidates} and {batch_size}"
        )
    recalls = np.stack(
        [
            _recall(model, image, candidates, batch_size, (seed, _STREAM, number))
            for number, image in enumerate(images)
        ]
    )  # (n, conditions, K)
    rng = np.random.default_rng((seed, _STREAM, 0, 1))
    estimates = bootstrap(recalls, np.ones_like(recalls), rng)
    return DomainSensitivity(
        images=len(images),
        candidates=candidates,
        ranks=RANKS,
        recall={condition: estimates.at(row) for row, condition in enumerate(CONDITIONS)},
        chance=np.minimum(1, np.array(RANKS) / candidates),
    )


def _recall(
    model: PredictsWorld,
    image: NDArray[np.uint8],
    candidates: int,
    batch_size: int,
    seed: tuple[int, ...],
) -> NDArray[np.float64]:
    """Return the mean recall (conditions, K) over the versions of one image."""
    views, rng = model.views, np.random.default_rng(seed)
    whole = whole_image(views, image)
    clean = [views.jitter(whole, rng, probability=1.0) for _ in range(candidates)]
    distorted, actions = zip(
        *(views.distort(version, rng, probability=1.0) for version in clean), strict=True
    )
    seen, masked = draw_masks(model, rng)
    true = torch.from_numpy(np.stack(actions)).to(masked.device)
    other = true.roll(int(rng.integers(1, candidates)), dims=0)
    given = dict(zip(CONDITIONS, (true, None, other), strict=True))
    batches = [slice(start, start + batch_size) for start in range(0, candidates, batch_size)]
    targets = torch.cat(
        [model.targets(as_batch(model, clean[batch]))[:, masked].flatten(1) for batch in batches]
    )
    numbers = torch.arange(candidates)
    found: dict[str, list[Tensor]] = {condition: [] for condition in CONDITIONS}
    for batch in batches:
        context = as_batch(model, distorted[batch])
        for condition, action in given.items():
            predicted = model.predict(
                context,
                context_index=seen.expand(len(context), -1),
                target_index=masked.expand(len(context), -1),
                action=None if action is None else action[batch],
            )
            distances = feature_distances(predicted.flatten(1), targets)
            found[condition].append(hits(distances, numbers[batch], RANKS))
    return np.stack([torch.cat(rows).mean(0).numpy() for rows in found.values()])

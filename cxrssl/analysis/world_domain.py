"""Domain sensitivity: does a world model undo the very distortion it is told of?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.world_model import (
    PredictsWorld,
    WorldDraws,
    as_batch,
    draw_masks,
    need_images,
    whole_image,
)
from cxrssl.analysis.world_retrieval import feature_distances, hits
from cxrssl.analysis.world_scores import (
    Bootstrap,
    Estimates,
    score_rows,
    score_table,
    with_differences,
)
from cxrssl.errors import InputError

__all__ = ["DOMAIN_CONDITIONS", "DomainSensitivity", "VersionsAlikeError", "domain_sensitivity"]

DOMAIN_CONDITIONS = ("true action", "identity action", "other action")
RANKS = (1, 3, 5)

_DIFFERENCES = (("true action", "identity action"), ("true action", "other action"))
_STREAM = 1


class VersionsAlikeError(InputError):
    """The views make no versions of an image that could be told apart."""


@dataclass(frozen=True)
class DomainSensitivity:
    """Recall of the right version of an image among versions that differ in grey values only.

    Attributes:
        images: Number of images.
        candidates: Versions of each image.
        ranks: Ranks k that count as a hit, (K,).
        recall: Recall@k, (K,), of each of `DOMAIN_CONDITIONS`, and the differences ``true action
            minus identity action`` and ``true action minus other action``.
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
    after_image: Callable[[int], None] | None = None,
) -> DomainSensitivity:
    """Return how well predictions tell apart versions of one image (CheXWorld, arXiv 2504.13820).

    Each image is made into ``candidates`` clean versions y_i of other brightness and contrast, and
    each of these is distorted into x_i by an action a_i. From x_i the model predicts tokens of y_i;
    all clean versions are ranked by their squared distance to the prediction. The action given is
    the true one, the identity, which says that nothing was done, or another version's: what a model
    knows of actions is the difference. All three see the same versions, under one mask an image as
    in training, and are compared on the masked patches.

    The paper's row "no action" is another model, one trained without being told actions
    (``WorldModel(action=False)``); for such a model the three conditions are equal.

    Args:
        model: The world model, in evaluation mode.
        images: At least two radiographs, each (H, W) uint8.
        candidates: Versions of each image, at least 2.
        seed: Seed of all draws. The draws of an image depend on its place in ``images`` and on
            nothing else.
        batch_size: Versions in one pass.
        after_image: Called after each image with the number of images that are done.

    Raises:
        VersionsAlikeError: If the views change neither brightness nor contrast.
        InputError: If there are fewer than two images, or a number is too small.
        ValueError: If the model's tokens are not finite.
    """
    need_images(images)
    if candidates < 2 or batch_size < 1:
        raise InputError(
            "candidates must be at least 2 and batch_size at least 1, "
            f"got {candidates} and {batch_size}"
        )
    _need_versions(model.views, images)
    recalls = np.zeros((len(images), len(DOMAIN_CONDITIONS), len(RANKS)))
    for number, image in enumerate(images):
        drawn = (seed, _STREAM, number)
        recalls[number] = _recall(model, image, candidates, batch_size, drawn)
        if after_image is not None:
            after_image(number + 1)
    bootstrap = Bootstrap(len(images), np.random.default_rng((seed, _STREAM, 0, 1)))
    conditions = dict(zip(DOMAIN_CONDITIONS, recalls.swapaxes(0, 1), strict=True))
    return DomainSensitivity(
        images=len(images),
        candidates=candidates,
        ranks=RANKS,
        recall={
            condition: bootstrap.means(recall, np.ones_like(recall))
            for condition, recall in with_differences(conditions, _DIFFERENCES).items()
        },
        chance=np.minimum(1, np.array(RANKS) / candidates),
    )


def _need_versions(views: WorldDraws, images: Sequence[NDArray[np.uint8]]) -> None:
    """Raise an error unless the views change the grey values of one image at least."""
    rng = np.random.default_rng(0)
    for image in images:
        first, second = (views.jitter(image, rng, probability=1.0) for _ in range(2))
        if not np.array_equal(first, second):
            return
    raise VersionsAlikeError(
        "the versions of an image are all alike: domain sensitivity needs views that change "
        "brightness or contrast, set jitter_brightness or jitter_contrast to a range"
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
    given = dict(zip(DOMAIN_CONDITIONS, (true, None, other), strict=True))
    batches = [slice(start, start + batch_size) for start in range(0, candidates, batch_size)]
    targets = torch.cat(
        [model.targets(as_batch(model, clean[batch]))[:, masked].flatten(1) for batch in batches]
    )
    numbers = torch.arange(candidates)
    found: dict[str, list[Tensor]] = {condition: [] for condition in DOMAIN_CONDITIONS}
    for batch in batches:
        shown = as_batch(model, distorted[batch])
        context = model.encode_context(shown, seen.expand(len(shown), -1))
        for condition, action in given.items():
            predicted = model.predict(
                context,
                target_index=masked.expand(len(shown), -1),
                action=None if action is None else action[batch],
            )
            distances = feature_distances(predicted.flatten(1), targets)
            found[condition].append(hits(distances, numbers[batch], RANKS))
    return np.stack([torch.cat(rows).mean(0).numpy() for rows in found.values()])

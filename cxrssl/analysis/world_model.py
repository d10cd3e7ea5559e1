"""What the measures of a world model ask of it and of its views."""

from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = [
    "CropPair",
    "DrawsMasks",
    "EvaluationView",
    "PredictsWorld",
    "WorldDraws",
    "as_batch",
    "as_world",
    "draw_masks",
    "grid_side",
    "need_images",
    "whole_image",
]


_OF_MODEL = ("encode_context", "parameters", "predict", "targets")
_OF_VIEWS = (
    "crop_pair",
    "distort",
    "eval_view",
    "image_size",
    "jitter",
    "masking",
    "mean",
    "patch_size",
    "std",
    "to_tensor",
)


class EvaluationView(Protocol):
    """The deterministic view of a whole image."""

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, Tensor]:
        """Return ``image`` (C, H, W) of an image (H, W) uint8."""


class DrawsMasks(Protocol):
    """Masks over the patch grid."""

    def collate_masks(
        self, n_images: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return patches that are seen (n, 1, Kc) and patches to predict (n, 1, Kt)."""


class CropPair(Protocol):
    """Two crops of one image."""

    @property
    def crops(self) -> Sequence[NDArray[np.uint8]]:
        """Both crops, each (S, S)."""

    @property
    def offset(self) -> NDArray[np.float32]:
        """(2, 4); row v places crop v in the frame of the other, see `place_patches`."""


class WorldDraws(Protocol):
    """The parts of a world model's views, each on its own."""

    image_size: int
    patch_size: int
    mean: float
    std: float

    @property
    def masking(self) -> DrawsMasks:
        """Which patches are seen and which are predicted."""

    def jitter(
        self, image: NDArray[np.uint8], rng: np.random.Generator, probability: float | None = None
    ) -> NDArray[np.uint8]:
        """Return an image (H, W) with other brightness and contrast."""

    def distort(
        self, crop: NDArray[np.uint8], rng: np.random.Generator, probability: float | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return a distorted crop (S, S) and the action (5,) that made it."""

    def crop_pair(self, image: NDArray[np.uint8], rng: np.random.Generator) -> CropPair:
        """Return two random crops of an image (H, W)."""

    def to_tensor(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an image (H, W) normalised, (C, H, W)."""

    def eval_view(self) -> EvaluationView:
        """Return the deterministic view."""


class PredictsWorld(Protocol):
    """A model that predicts tokens of what it does not see; N patches, row by row."""

    @property
    def views(self) -> WorldDraws:
        """The views it was trained on."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters, which tell device and precision."""

    def targets(self, images: Tensor) -> Tensor:
        """Return target tokens (B, N, D) of images (B, C, H, W), normalised over D."""

    def encode_context(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Return context tokens (B, Kc, d) of images (B, C, H, W).

        Args:
            images: What the model is shown.
            index: Patches (B, Kc) that are seen; None for all.
        """

    def predict(
        self,
        context: Tensor,
        *,
        target_index: Tensor | None = None,
        offset: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Tensor:
        """Return predicted tokens (B, Kt, D).

        Args:
            context: Context tokens (B, Kc, d), which many predictions may share.
            target_index: Patches (B, Kt) to predict; None for all N.
            offset: Where the predicted crop lies, (B, 4); None for the context's own frame.
            action: What was done to the context, (B, 5); None for nothing.
        """


def as_world(module: object) -> PredictsWorld | None:
    """Return a module as a world model, None if it is none."""
    views = getattr(module, "views", None)
    complete = all(hasattr(module, name) for name in _OF_MODEL) and all(
        hasattr(views, name) for name in _OF_VIEWS
    )
    return cast(PredictsWorld, module) if complete else None


def grid_side(views: WorldDraws) -> int:
    """Return the number G of patches along a side of a view."""
    return views.image_size // views.patch_size


def whole_image(views: WorldDraws, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the deterministic view of an image (H, W) in grey levels, (S, S)."""
    normalised = views.eval_view()(image)["image"][0].numpy()
    return np.rint((normalised * views.std + views.mean) * 255).clip(0, 255).astype(np.uint8)


def as_batch(model: PredictsWorld, crops: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return crops (S, S) as the model takes them, (B, C, S, S)."""
    parameter = next(model.parameters())
    batch = torch.stack([model.views.to_tensor(crop) for crop in crops])
    return batch.to(parameter.device, parameter.dtype)


def draw_masks(model: PredictsWorld, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return patches that are seen (Kc,) and to be predicted (Kt,), drawn as in training.

    A single image is drawn: the masks of a batch are cut to the shortest, which favours the top.
    """
    device = next(model.parameters()).device
    context, target = model.views.masking.collate_masks(1, rng)
    return torch.from_numpy(context[0, 0]).to(device), torch.from_numpy(target[0, 0]).to(device)


def need_images(images: Sequence[NDArray[np.uint8]]) -> None:
    """Refuse to measure without another image to compare with.

    Raises:
        InputError: There are fewer than two images.
    """
    if len(images) < 2:
        raise InputError(
            "a world model is compared with what it predicts from another image: at least two "
            f"images are needed, got {len(images)}"
        )

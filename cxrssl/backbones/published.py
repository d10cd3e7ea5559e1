"""What published encoders were trained with, where their files do not say."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cxrssl.backbones.base import Channels
from cxrssl.backbones.positions import Interpolation
from cxrssl.backbones.tokens import Pooling

__all__ = ["IMAGENET", "PUBLISHED", "Published", "heads_of_width", "published_convnet", "recognise"]

IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's colours, which grey images were normalised with too."""
_MIMIC: tuple[Channels, Channels] = (0.5307, 0.2583)
_OTHER_WIDTHS = {1280: 16, 1408: 16, 1664: 16}
"""Published ViTs (huge, I-JEPA's giant, gigantic) whose heads are not 64 wide."""


@dataclass(frozen=True)
class Published:
    """What a family of encoders was trained with.

    Side, patch, registers and class token are in the tensors; norms of all have an epsilon of 1e-6,
    and heads are 64 wide but for the widths of 1280 and more in :func:`heads_of_width`.

    Attributes:
        name: What it is called in reports.
        normalisation: Mean and standard deviation, None where every model has another.
        interpolation: How its code resamples positions; see :func:`resample_positions`.
        pooling: What of its tokens stands for an image.
        source: Where this is said.
    """

    name: str
    normalisation: tuple[Channels, Channels] | None
    interpolation: Interpolation
    pooling: Pooling
    source: str


PUBLISHED = {
    entry.name: entry
    for entry in (
        Published(
            "official DINOv2",
            IMAGENET,
            "offset",
            "class",
            "arXiv 2304.07193; hub models: interpolate_offset 0.1, no antialiasing",
        ),
        Published(
            "official DINOv2 with registers",
            IMAGENET,
            "size",
            "class",
            "arXiv 2309.16588; hub models: interpolate_offset 0.0, antialiasing",
        ),
        Published(
            "DINOv2 training, as of CheXFound",
            IMAGENET,
            "offset",
            "class",
            "DINOv2's training configuration, with registers too; CheXFound, arXiv 2502.05142, "
            "which leaves it as it is",
        ),
        Published(
            "RAD-DINO",
            _MIMIC,
            "plain",
            "class",
            "arXiv 2401.10815 and its model card: 518 px, bicubic, MIMIC-CXR's grey values",
        ),
        Published(
            "Hugging Face Dinov2Model", IMAGENET, "plain", "class", "transformers, Dinov2Model"
        ),
        Published(
            "Hugging Face Dinov2WithRegistersModel",
            IMAGENET,
            "size",
            "class",
            "transformers, Dinov2WithRegistersModel",
        ),
        Published(
            "CheXWorld",
            IMAGENET,
            "plain",
            "mean",
            "arXiv 2504.13820 and its code: 224 px, mean over all patches",
        ),
        Published(
            "I-JEPA", IMAGENET, "plain", "mean", "arXiv 2301.08243 and its code: mean over patches"
        ),
        Published("MLVICX", IMAGENET, "size", "mean", "arXiv 2403.11504 and its code"),
        Published("torchvision", IMAGENET, "size", "mean", "torchvision's reference transforms"),
        Published("timm", None, "size", "class", "timm: each model's pretrained_cfg"),
    )
}
"""By name. Interpolation means nothing in a ConvNet."""

_CHUNKED = re.compile(r"(?:^|\.)blocks\.\d+\.\d+\.")
_RELEASED_PARTS = ("mask_token", "register_tokens", ".mlp.w12.")


def recognise(layout: str, keys: Iterable[str], path: str | Path) -> Published:
    """Return the family of a ViT's file.

    Args:
        layout: What :func:`to_timm_names` calls its format.
        keys: Names of its tensors, as they stand in the file.
        path: The file; RAD-DINO has the keys of other models, and is known by its name alone.
    """
    keys = list(keys)
    registers = any(key.endswith(("register_tokens", "reg_token")) for key in keys)
    if layout == "CheXWorld or I-JEPA":
        told = any(".policy_net." in key or key.startswith("policy_net.") for key in keys)
        return PUBLISHED["CheXWorld" if told else "I-JEPA"]
    if layout == "Hugging Face":
        suffix = "WithRegistersModel" if registers else "Model"
        return _maybe_rad_dino(PUBLISHED[f"Hugging Face Dinov2{suffix}"], path)
    trained = any("backbone." in key or _CHUNKED.search(key) for key in keys)
    if trained:
        return PUBLISHED["DINOv2 training, as of CheXFound"]
    if not any(part in key for key in keys for part in _RELEASED_PARTS):
        return PUBLISHED["timm"]
    if registers:
        return PUBLISHED["official DINOv2 with registers"]
    return _maybe_rad_dino(PUBLISHED["official DINOv2"], path)


def published_convnet(layout: str, name: str) -> Published:
    """Return the family of a ConvNet's file.

    Args:
        layout: What it is called when the file is read.
        name: The architecture; files of ResNets are torchvision's or normalised like them.
    """
    if layout == "official MLVICX":
        return PUBLISHED["MLVICX"]
    return PUBLISHED["torchvision" if name.startswith("resnet") else "timm"]


def heads_of_width(width: int) -> int | None:
    """Return the attention heads of published ViTs of a width, None where there are none such."""
    if width in _OTHER_WIDTHS:
        return _OTHER_WIDTHS[width]
    return width // 64 if width % 64 == 0 else None


def _maybe_rad_dino(entry: Published, path: str | Path) -> Published:
    """Return RAD-DINO's entry, in the interpolation of the file's code, if the path names it."""
    if "rad-dino" not in str(path).lower():
        return entry
    return replace(PUBLISHED["RAD-DINO"], interpolation=entry.interpolation)

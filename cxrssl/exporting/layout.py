"""What every layout of an exported encoder consists of."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cxrssl.backbones import Backbone, ViT
from cxrssl.errors import InputError
from cxrssl.views.base import MIMIC_MEAN, MIMIC_STD

__all__ = ["BICUBIC", "UNKNOWN", "Layout", "each_channel", "feed_forward", "on_cpu", "refuse_gates"]

BICUBIC = "bicubic"
UNKNOWN = (MIMIC_MEAN, MIMIC_STD)
"""Normalisation of an encoder that knows none, as views have it."""


@dataclass(frozen=True)
class Layout:
    """An encoder as files.

    Attributes:
        weights_name: Name of the file of the weights.
        state: The weights by the names they have there.
        files: Plain data of other files, by their names, as JSON.
        library: The library that reads them.
        usage: Python code that loads the folder ``{out}``.
        resampling: How that library resamples positions at other sizes.
    """

    weights_name: str
    state: dict[str, Tensor]
    library: str
    usage: str
    resampling: str
    files: dict[str, dict[str, Any]] = field(default_factory=dict)


def each_channel(value: float | tuple[float, ...], channels: int) -> list[float]:
    """Return the values of all channels."""
    return [value] * channels if isinstance(value, int | float) else list(value)


def feed_forward(vit: ViT) -> tuple[str, int]:
    """Return the kind, ``mlp`` or ``swiglu``, and the hidden width of a ViT's feed-forward layers.

    Raises:
        InputError: If they have another activation.
    """
    mlp = vit.vit.blocks[0].mlp
    hidden = mlp.fc2.in_features
    gated = mlp.fc1.out_features == 2 * hidden
    activation = mlp.act
    if gated and isinstance(activation, nn.SiLU):
        return "swiglu", hidden
    plain = isinstance(activation, nn.GELU) and activation.approximate == "none"
    if not gated and plain:
        return "mlp", hidden
    raise InputError(
        f"feed-forward layers with {type(activation).__name__} cannot be said in this layout: "
        "export to format cxrssl"
    )


def refuse_gates(encoder: Backbone, library: str) -> None:
    """Refuse gates, which no other library has.

    Raises:
        InputError: If there are any.
    """
    if encoder.arguments.get("gates"):
        raise InputError(
            f"the encoder has gates after levels {encoder.arguments['gates']}, which {library} "
            "cannot say: export to format cxrssl, or take them out with --drop_gates"
        )


def on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of weights that lie in one piece on the CPU, each in memory of its own."""
    return {
        name: torch.clone(value.detach().cpu(), memory_format=torch.contiguous_format)
        for name, value in state.items()
    }

"""What every backbone offers to objectives, heads and tasks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cxrssl.backbones.tokens import Pooling, Tokens

if TYPE_CHECKING:
    from cxrssl.backbones.weights import LoadReport

__all__ = ["Backbone", "pooled_dim"]


class Backbone(nn.Module, ABC):
    """A network from images (B, C, H, W) to tokens, after its last level and after earlier ones.

    Attributes:
        arguments: What builds the same architecture again, ``type(backbone)(**arguments)``.
        embed_dim: Width D of the tokens.
        level_dims: Width of each level's tokens, first to last.
        depth: Number of the last layer that :meth:`layer_of` gives to a level.
        in_chans: Channels C of the images.
        img_size: Side in pixels of the images it is made for.
        load_report: What was loaded when it was built, None if nothing was.
        pretrained_mask_token: Mask token (1, D) of the loaded weights, None if there is none.
    """

    arguments: dict[str, Any]
    embed_dim: int
    level_dims: tuple[int, ...]
    depth: int
    in_chans: int
    img_size: int
    load_report: "LoadReport | None"
    pretrained_mask_token: Tensor | None

    @abstractmethod
    def forward(self, x: Tensor) -> Tokens:
        """Encode images (B, C, H, W)."""

    def forward_many(self, inputs: Sequence[Tensor]) -> list[Tokens]:
        """Encode several batches of images, which may differ in size."""
        return [self(x) for x in inputs]

    @abstractmethod
    def levels(self, x: Tensor, levels: Sequence[int]) -> list[Tokens]:
        """Return the tokens of images (B, C, H, W) after the given levels.

        Args:
            x: Images.
            levels: Numbers of levels from 0; negative ones count from the end.
        """

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, by its name here: the unit of layer-wise rates.

        What embeds the image is layer 0, the last level layer ``depth``, and what follows it layer
        ``depth`` + 1.
        """

    @abstractmethod
    def insert_gates(self, levels: Sequence[int], kernel: int = 7) -> None:
        """Put a gate after each of the given levels, in line: what follows sees the gated level.

        Args:
            levels: Numbers of levels from 0.
            kernel: Side of the gates' spatial convolution.
        """

    @abstractmethod
    def drop_gates(self) -> None:
        """Take the gates out again, as the published evaluation of MLVICX does."""


def pooled_dim(backbone: Backbone, pooling: Pooling) -> int:
    """Return the width of :meth:`Tokens.pool` for the tokens of a backbone."""
    both = pooling == "both" and backbone.arguments.get("class_token", False)
    return backbone.embed_dim * (2 if both else 1)

"""What every backbone offers to objectives, heads and tasks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from cxrssl.backbones.load_report import LoadReport
from cxrssl.backbones.tokens import Pooling, Tokens
from cxrssl.errors import InputError

__all__ = ["Backbone", "Channels", "pooled_dim"]

Channels = float | tuple[float, ...]
"""A number for all channels of an image, or one for each."""


class Backbone(nn.Module, ABC):
    """A network from images (B, C, H, W) to tokens, after its last level and after earlier ones.

    Gates can be put in line after levels (MLVICX, arXiv 2403.11504): what follows sees the gated
    level. They are part of the backbone, of its ``arguments`` and of its files.

    Attributes:
        arguments: Plain data that builds the architecture again, as it stands now:
            ``type(backbone)(**backbone.arguments)``.
        embed_dim: Width D of the last level's tokens.
        level_dims: Width of each level's tokens, first to last.
        depth: Number of layers between the embedding of the image and the final norm, for rates
            that fall from layer to layer; see :meth:`layer_of`.
        in_chans: Channels C of the images.
        img_size: Side in pixels of the square images it is made for.
        grid: Rows and columns of the patches of such an image after the last level.
        has_class_token: Whether its tokens have a class token.
        load_report: What was loaded when it was built, None if nothing was.
        pretrained_mask_token: Mask token (1, D) of the loaded weights, None if there is none.
        normalisation: Mean and standard deviation of grey values in [0, 1] that its images were
            normalised with, of all channels or of each, None if its file does not say.
        image_size: Side in pixels of the square images it is to be shown: ``img_size``, unless its
            files say otherwise.
        resize: Pixels of an image's shorter side before its central square is cut out; None is
            ``image_size``.
        resampling: What its images are resized with: ``area``, or ``pillow`` for Pillow's bicubic.
        trained_pooling: What of its tokens is trained to stand for an image, None if its file does
            not say; ``mean`` says that a class token is not.
    """

    arguments: dict[str, Any]
    embed_dim: int
    level_dims: tuple[int, ...]
    depth: int
    in_chans: int
    img_size: int
    grid: tuple[int, int]
    has_class_token: bool = False
    load_report: LoadReport | None = None
    pretrained_mask_token: Tensor | None = None
    normalisation: tuple[Channels, Channels] | None = None
    resize: int | None = None
    resampling: Literal["area", "pillow"] = "area"
    trained_pooling: Pooling | None = None
    _image_size: int | None = None

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images that the encoder is to be shown."""
        return self.img_size if self._image_size is None else self._image_size

    @image_size.setter
    def image_size(self, size: int) -> None:
        self._image_size = size

    def pooling(self, wanted: Pooling | None = None) -> Pooling:
        """Return what of the tokens stands for an image: never a class token nobody has trained.

        Args:
            wanted: What is asked for; what the encoder was trained for if None, else the class
                token.
        """
        if self.trained_pooling == "mean":
            return "mean"
        return wanted or self.trained_pooling or "class"

    @abstractmethod
    def forward(self, x: Tensor) -> Tokens:
        """Encode images (B, C, H, W)."""

    @abstractmethod
    def levels(
        self,
        x: Tensor,
        levels: Sequence[int],
        norm: bool | Literal["last"] = True,
        stem: bool = False,
    ) -> list[Tokens]:
        """Return the tokens of images after the given levels.

        Args:
            x: Images (B, C, H, W).
            levels: Numbers of levels from 0; negative ones count from the end.
            norm: Whether levels pass through the final norm where the backbone has one: all of
                them, none, or the ``last`` level of the backbone alone.
            stem: Whether the embedded image comes first, where it is no level of its own.

        Raises:
            InputError: If the backbone has no such level.
        """

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, by its name in the backbone.

        What embeds the image is layer 0, block or stage i layer i + 1, with its gate, and all else
        layer ``depth`` + 1.
        """

    def forward_many(self, inputs: Sequence[Tensor]) -> list[Tokens]:
        """Encode several batches of images (B_i, C, H_i, W_i), which may differ in size."""
        return [self(x) for x in inputs]

    def insert_gates(self, levels: Sequence[int] | None = None, kernel: int | None = None) -> None:
        """Put a gate in line after each of the given levels.

        Gates that are there already, after the same levels and with the same kernel, stay.

        Args:
            levels: Numbers of levels; negative ones count from the end. All if left out.
            kernel: Side of the gates' spatial convolution; what suits the backbone if left out.

        Raises:
            InputError: If there are other gates already, or the backbone has no such levels.
        """
        n_levels = len(self.level_dims)
        numbers = sorted(set(self._numbers(range(n_levels) if levels is None else levels)))
        side = self.default_gate_kernel if kernel is None else kernel
        wanted = {"gates": numbers, "gate_kernel": side}
        if self.arguments.get("gates"):
            present = {name: self.arguments[name] for name in wanted}
            if present != wanted:
                raise InputError(
                    f"the backbone has gates of kernel {present['gate_kernel']} after levels "
                    f"{present['gates']}, so that none of kernel {side} can be put after "
                    f"{numbers}: call drop_gates() first"
                )
            return
        weight = next(self.parameters())
        gates = {number: self._new_gate(number, side).to(weight) for number in numbers}
        for number, gate in gates.items():
            self._set_gate(number, gate)
        self.arguments |= wanted

    def drop_gates(self) -> None:
        """Take all gates out, as the published evaluation of MLVICX does.

        What follows a gate was trained on what the gate leaves, and now sees something else.
        """
        for number in self.arguments.get("gates", []):
            self._set_gate(number, None)
        self.arguments |= {"gates": [], "gate_kernel": None}

    @property
    def default_gate_kernel(self) -> int:
        """Side of a gate's spatial convolution that suits the backbone."""
        return 7

    def _new_gate(self, level: int, kernel: int) -> nn.Module:
        """Return a gate for a level; a backbone that has gates overrides this and the next."""
        raise InputError(f"{type(self).__name__} has no gates")

    def _set_gate(self, level: int, gate: nn.Module | None) -> None:
        """Put a gate after a level, or take it away."""
        raise NotImplementedError

    def _numbers(self, levels: Sequence[int]) -> list[int]:
        """Return the numbers of levels, counted from 0."""
        n = len(self.level_dims)
        wrong = [level for level in levels if not -n <= level < n]
        if wrong:
            raise InputError(f"the backbone has levels {-n} to {n - 1}, got {wrong}")
        return [level % n for level in levels]


def pooled_dim(backbone: Backbone, pooling: Pooling) -> int:
    """Return the width of :meth:`Tokens.pool` for the tokens of a backbone."""
    both = pooling == "both" and backbone.has_class_token
    return backbone.embed_dim * (2 if both else 1)

"""What a backbone makes of an image."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cxrssl.errors import InputError

__all__ = ["Pooling", "Tokens"]

Pooling = Literal["class", "mean", "both"]


class Tokens(NamedTuple):
    """Tokens of a batch of images; of a ConvNet, the pixels of a map as patches.

    A named tuple, since distributed wrappers look for tensors in tuples and not in other objects.

    Attributes:
        cls: Class token (B, D), None where the backbone has none.
        registers: Register tokens (B, R, D); R may be 0.
        patches: Patch tokens (B, N, D), row by row; only the kept ones where patches were dropped.
        grid: Rows and columns (h, w) of the whole grid, h * w = N unless patches were dropped.
    """

    cls: Tensor | None
    registers: Tensor
    patches: Tensor
    grid: tuple[int, int]

    @property
    def image(self) -> Tensor:
        """One vector (B, D) for the image: the class token, else the mean patch token."""
        return self.pool("class")

    @property
    def map(self) -> Tensor:
        """The patches as a map (B, D, h, w), a view.

        Raises:
            InputError: If patches were dropped.
        """
        height, width = self.grid
        if self.patches.shape[1] != height * width:
            raise InputError(
                f"{self.patches.shape[1]} patches make no map of {height} x {width}: keep all"
            )
        level: Tensor = self.patches.transpose(1, 2).unflatten(2, self.grid)
        return level

    def pool(self, pooling: Pooling) -> Tensor:
        """Return one vector for the image, (B, D) or (B, 2 D).

        Args:
            pooling: ``class`` for the class token, ``mean`` for the mean patch token, ``both`` for
                one after the other. Without a class token, each is the mean patch token.
        """
        if self.cls is not None and pooling == "class":
            return self.cls
        mean = self.patches.mean(1)
        return mean if self.cls is None or pooling == "mean" else torch.cat([self.cls, mean], 1)

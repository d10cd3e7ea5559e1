"""What a ViT makes of an image."""

from typing import NamedTuple

from torch import Tensor

__all__ = ["Tokens"]


class Tokens(NamedTuple):
    """Tokens of a batch of images after the final norm.

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
        return self.patches.mean(1) if self.cls is None else self.cls

"""What can be said of a target token without the image it is from."""

import torch
from torch import Tensor

__all__ = ["TokenMeans"]


class TokenMeans:
    """Means of target tokens at every place of the grid, gathered crop by crop.

    Target tokens carry their own position, so that the mean token of a place finds the place again
    in an image it has never met. That is the least a prediction has to surpass.
    """

    def __init__(self) -> None:
        self._crops = 0
        self._sums = torch.zeros((), dtype=torch.float64)

    def add(self, tokens: Tensor) -> None:
        """Take up the tokens (B, N, D) of some crops."""
        self._crops += len(tokens)
        self._sums = self._sums + _sum(tokens)

    def without(self, tokens: Tensor) -> Tensor:
        """Return the mean token of each place, (N, D), over all crops but those of one image.

        Args:
            tokens: All tokens (B, N, D) of the image, which were taken up before.
        """
        return ((self._sums - _sum(tokens)) / (self._crops - len(tokens))).to(tokens)

    def overall(self) -> Tensor:
        """Return the mean of all tokens, (D,), on the CPU."""
        return (self._sums / self._crops).mean(0).float()


def _sum(tokens: Tensor) -> Tensor:
    # Float64 so that taking an image out again leaves nothing of it; some devices lack it.
    return tokens.cpu().double().sum(0)

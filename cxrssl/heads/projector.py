"""The projector of joint-embedding methods without a teacher, VICReg's expander."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn

from cxrssl.errors import InputError

__all__ = ["Projector"]


class Projector(nn.Module):
    """MLP with batch norm and ReLU after every layer but the last (VICReg, arXiv 2105.04906).

    The last layer is a Linear without bias. With ``final_bn`` it has one, and a batch norm behind
    it, as in MLVICX's code: that sets the standard deviations to its learnt scale, which is 1 at
    the start, so that VICReg's variance term is 0 until the scale shrinks.

    Args:
        in_dim: Width D of what is projected.
        widths: Width of each layer, the output's last; VICReg's by default.
        final_bn: Whether a batch norm ends it.

    Raises:
        InputError: If there is no layer, or a width is not positive.
    """

    def __init__(
        self,
        in_dim: int,
        widths: Sequence[int] = (8192, 8192, 8192),
        *,
        final_bn: bool = False,
    ) -> None:
        super().__init__()
        if not widths or min(in_dim, *widths) < 1:
            raise InputError(
                "the projector needs a positive in_dim and at least one positive width, got "
                f"{in_dim} and {list(widths)}"
            )
        *hidden, (before, out) = itertools.pairwise([in_dim, *widths])
        steps: list[nn.Module] = []
        for left, right in hidden:
            steps += [nn.Linear(left, right), nn.BatchNorm1d(right), nn.ReLU(inplace=True)]
        steps.append(nn.Linear(before, out, bias=final_bn))
        if final_bn:
            steps.append(nn.BatchNorm1d(out))
        self.mlp = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, K) of vectors (B, D)."""
        embeddings: Tensor = self.mlp(x)
        return embeddings

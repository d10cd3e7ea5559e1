"""The projector of Siamese objectives, also called expander."""

import itertools

from torch import nn

from cxrssl.errors import InputError

__all__ = ["Projector"]


class Projector(nn.Sequential):
    """Linear layers with batch norm and ReLU between them; rows (B, D) to rows (B, widths[-1]).

    VICReg (arXiv 2105.04906) ends with a linear layer without bias. MLVICX's code ends with one
    with bias and a further batch norm, whose outputs begin with a standard deviation of 1.

    Args:
        in_dim: Width D of the rows.
        widths: Width of each layer's outputs; VICReg's by default.
        final_bn: Whether the last layer has a batch norm.

    Raises:
        InputError: If there is no layer or a width is not positive.
    """

    def __init__(
        self,
        in_dim: int,
        widths: tuple[int, ...] = (8192, 8192, 8192),
        *,
        final_bn: bool = False,
    ) -> None:
        if not widths or min(in_dim, *widths) < 1:
            raise InputError(f"widths must be positive and at least one, got {widths} on {in_dim}")
        *hidden, last = itertools.pairwise((in_dim, *widths))
        layers: list[nn.Module] = []
        for left, right in hidden:
            layers += [nn.Linear(left, right), nn.BatchNorm1d(right), nn.ReLU(inplace=True)]
        layers.append(nn.Linear(*last, bias=final_bn))
        if final_bn:
            layers.append(nn.BatchNorm1d(last[1]))
        super().__init__(*layers)

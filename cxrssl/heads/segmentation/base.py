"""What every segmentation decoder offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cxrssl.backbones.tokens import Tokens
from cxrssl.errors import InputError

__all__ = ["SegmentationDecoder", "resize"]


class SegmentationDecoder(nn.Module, ABC):
    """A network from levels of an encoder to logits of K structures at every pixel.

    Structures may overlap (ribs do), so each has a logit of its own, for a sigmoid.

    Args:
        dims: Width of each level of the encoder, first to last.
        n_structures: Number of structures K.
        levels: Numbers of the levels that are read; negative ones count from the end.
        in_chans: Channels C of the images, which not every decoder looks at.

    Attributes:
        n_structures: K.
        in_chans: C.
        auxiliary_weight: Weight in training of the loss on :meth:`auxiliary`; 0 without one.

    Raises:
        InputError: If a size is not positive, or the encoder has no such levels.
    """

    def __init__(
        self, dims: Sequence[int], n_structures: int, *, levels: Sequence[int], in_chans: int = 1
    ) -> None:
        super().__init__()
        if not dims or min(*dims, n_structures, in_chans) < 1:
            raise InputError(
                "the decoder needs at least one level and positive sizes, got "
                f"dims {list(dims)}, n_structures {n_structures}, in_chans {in_chans}"
            )
        depth = len(dims)
        wrong = [level for level in levels if not -depth <= level < depth]
        if wrong or not levels:
            raise InputError(
                f"the decoder reads levels {-depth} to {depth - 1} of this encoder, "
                f"got {list(levels)}"
            )
        self.n_structures = n_structures
        self.in_chans = in_chans
        self.auxiliary_weight = 0.0
        self._levels = tuple(level % depth for level in levels)

    def level_numbers(self) -> tuple[int, ...]:
        """Return the numbers, from 0, of the encoder's levels that the decoder reads."""
        return self._levels

    @abstractmethod
    def forward(self, levels: Sequence[Tokens], images: Tensor) -> Tensor:
        """Return logits (B, K, H, W).

        Args:
            levels: Tokens after each of :meth:`level_numbers`, in that order.
            images: (B, C, H, W), what the encoder saw.

        Raises:
            InputError: If there are more or fewer levels.
        """

    def auxiliary(self, levels: Sequence[Tokens], images: Tensor) -> Tensor | None:
        """Return logits (B, K, H, W) of a second, shallow head for training, if there is one.

        Args:
            levels: See :meth:`forward`.
            images: See :meth:`forward`.
        """
        return None

    def _maps(self, levels: Sequence[Tokens]) -> list[Tensor]:
        """Return the maps (B, D_k, h_k, w_k) of the levels."""
        if len(levels) != len(self._levels):
            raise InputError(f"the decoder reads levels {self._levels}, got {len(levels)} of them")
        return [level.map for level in levels]


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Return maps (B, D, h, w) at the size of others (..., H, W), bilinear with half-pixel centres.

    Maps of that size are returned as they are.
    """
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)

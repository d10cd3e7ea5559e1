"""The linear probe."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cxrssl.backbones import Pooling, Tokens
from cxrssl.errors import InputError
from cxrssl.heads.classification.base import ClassificationHead

__all__ = ["LinearProbe"]


class LinearProbe(ClassificationHead):
    """One Linear on pooled tokens of the last levels, next to each other.

    ``pooling="both"`` with ``blocks`` of 1 or 4 is the grid of DINOv2 (Oquab et al., 2023) and of
    CheXFound (arXiv 2502.05142); ``pooling="mean"`` with ``init="torch"`` is CheXWorld's head.

    Args:
        dims: Widths of all levels of the encoder.
        n_findings: Number F of findings.
        blocks: How many of the last levels are read.
        pooling: ``class`` for the class token of each level; ``mean`` for the mean patch token of
            each; ``both`` for the class token of each, and behind them the mean patch token of the
            last level alone. Without class tokens, mean patch tokens take their place.
        init: ``normal`` starts the weight from a normal of standard deviation 0.01 and the bias
            from 0, as DINOv2 does; ``torch`` leaves what :class:`torch.nn.Linear` starts from.

    Raises:
        InputError: If a number is out of range, or the pooling or the init is unknown.
    """

    needs_patches = False

    def __init__(
        self,
        dims: Sequence[int],
        n_findings: int,
        *,
        blocks: int = 1,
        pooling: Pooling = "class",
        init: Literal["normal", "torch"] = "normal",
    ) -> None:
        super().__init__(dims, n_findings, blocks=blocks)
        if pooling not in get_args(Pooling):
            raise InputError(f"pooling must be 'class', 'mean' or 'both', got {pooling!r}")
        if init not in ("normal", "torch"):
            raise InputError(f"init must be 'normal' or 'torch', got {init!r}")
        self.pooling = pooling
        in_dim = sum(self.dims) + (self.dims[-1] if pooling == "both" else 0)
        self.classifier = nn.Linear(in_dim, n_findings)
        if init == "normal":
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    def forward(self, levels: Sequence[Tokens]) -> Tensor:
        """Return logits (B, F), see :meth:`ClassificationHead.forward`."""
        logits: Tensor = self.classifier(self.pool(levels))
        return logits

    def pool(self, levels: Sequence[Tokens]) -> Tensor:
        """Return what the Linear sees, (B, D) with D the sum of the pooled widths."""
        self._check_count(levels)
        each: Pooling = "mean" if self.pooling == "mean" else "class"
        pooled = [level.pool(each) for level in levels]
        if self.pooling == "both":
            pooled.append(levels[-1].pool("mean"))
        return torch.cat(pooled, 1)

"""What every classification head offers to the tasks and probes that train it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError

__all__ = ["ClassificationHead"]


class ClassificationHead(nn.Module, ABC):
    """From the tokens of an encoder's last levels to one logit for each finding.

    Args:
        dims: Widths of all levels of the encoder, first to last, its ``level_dims``; the head reads
            the last ``blocks`` of them.
        n_findings: Number F of findings.
        blocks: How many of the last levels are read.

    Attributes:
        blocks: How many of the encoder's last levels the head reads.
        needs_patches: Whether it looks at single patches. If not, the class token and the mean
            patch token of each level are enough, and a cache of features may hold that mean as the
            only patch.
        dims: Widths of the levels that are read, first to last.
        n_findings: Number F of findings.

    Raises:
        InputError: If there is no finding, or the encoder has fewer levels than ``blocks``.
    """

    blocks: int
    needs_patches: bool = True
    dims: tuple[int, ...]
    n_findings: int

    def __init__(self, dims: Sequence[int], n_findings: int, *, blocks: int = 1) -> None:
        super().__init__()
        if n_findings < 1:
            raise InputError(f"a classification head needs at least one finding, got {n_findings}")
        if not 1 <= blocks <= len(dims):
            raise InputError(
                f"the encoder has {len(dims)} levels, so that blocks must be from 1 to "
                f"{len(dims)}, got {blocks}"
            )
        self.blocks = blocks
        self.dims = tuple(dims[-blocks:])
        self.n_findings = n_findings

    @abstractmethod
    def forward(self, levels: Sequence[Tokens]) -> Tensor:
        """Return logits (B, F).

        Args:
            levels: The last ``blocks`` levels, first to last, through the encoder's final norm.

        Raises:
            InputError: If there are more or fewer levels than ``blocks``.
        """

    def _check_count(self, levels: Sequence[Tokens]) -> None:
        if len(levels) != self.blocks:
            raise InputError(f"the head reads the last {self.blocks} levels, got {len(levels)}")

"""Several heads trained side by side on the same features, and the choice among them."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError
from cxrssl.heads import ClassificationHead

__all__ = ["Candidate", "Candidates", "NewHead"]

NewHead = Callable[[Sequence[int], int], ClassificationHead]
"""Makes a head from the widths of all levels of the encoder and the number of findings."""


class Candidate(NamedTuple):
    """One head and the learning rate it is trained with, None for the recipe's.

    Without a name it is called by its class.
    """

    name: str | None
    make: NewHead
    lr: float | None


class Candidates(nn.ModuleList):
    """Heads on the last levels of one encoder.

    Args:
        candidates: What is made.
        dims: Widths of all levels of the encoder.
        n_findings: Number F of findings.

    Attributes:
        names: Their names.
        rates: Their learning rates, None for the recipe's.
        blocks: Most levels that one of them reads.
        needs_patches: Whether one of them looks at single patches.
    """

    def __init__(
        self, candidates: Sequence[Candidate], dims: Sequence[int], n_findings: int
    ) -> None:
        heads = [candidate.make(dims, n_findings) for candidate in candidates]
        super().__init__(heads)
        self.names = [
            _name(candidate, head) for candidate, head in zip(candidates, heads, strict=True)
        ]
        self.rates = [candidate.lr for candidate in candidates]
        self.blocks = max(head.blocks for head in heads)
        self.needs_patches = any(head.needs_patches for head in heads)

    def logits(self, number: int, levels: Sequence[Tokens]) -> Tensor:
        """Return the logits (B, F) of one head, given the last ``blocks`` levels."""
        head = self.head(number)
        logits: Tensor = head(list(levels)[len(levels) - head.blocks :])
        return logits.float()

    def head(self, number: int) -> ClassificationHead:
        """Return one head."""
        return cast(ClassificationHead, self[number])


def make_candidates(
    heads: Mapping[str, NewHead] | Mapping[None, NewHead], learning_rates: Sequence[float] | None
) -> list[Candidate]:
    """Return each head with each learning rate.

    Args:
        heads: Heads by name; None calls one by its class.
        learning_rates: Learning rates; None for the recipe's.

    Raises:
        InputError: If there is no head, a learning rate is not positive, or one is given twice.
    """
    if not heads:
        raise InputError("a classification needs at least one head")
    if learning_rates is None:
        return [Candidate(name, make, None) for name, make in heads.items()]
    rates = list(learning_rates)
    if not rates or min(rates) <= 0 or len(set(rates)) < len(rates):
        raise InputError(f"learning_rates must be positive and different, got {rates}")
    return [Candidate(name, make, rate) for name, make in heads.items() for rate in rates]


def _name(candidate: Candidate, head: ClassificationHead) -> str:
    name = candidate.name or type(head).__name__
    return name if candidate.lr is None else f"{name}_lr{candidate.lr:g}"

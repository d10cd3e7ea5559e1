"""Several heads trained side by side on the same features, and the choice among them."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError
from cxrssl.heads import ClassificationHead
from cxrssl.losses.distributed import all_sum

__all__ = ["Candidate", "Candidates", "NewHead", "make_candidates"]

NewHead = Callable[[Sequence[int], int], ClassificationHead]
"""Makes a head from the widths of all levels of the encoder and the number of findings."""

_TAKEN = ("loss", "backbone")
"""Names under which other things are logged or clipped."""


class Candidate(NamedTuple):
    """One head and the learning rate it is trained with, None for the recipe's.

    Without a name it is called by its class.
    """

    name: str | None
    make: NewHead
    lr: float | None


class Candidates(nn.ModuleList):
    """Heads on the last levels of one encoder, each of which learns what it would learn alone.

    All start from the same state of the random generator and draw the same numbers in training. One
    that breaks is dropped: its weights become 0 and stay so. The last one left is not.

    Args:
        candidates: What is made.
        dims: Widths of all levels of the encoder.
        n_findings: Number F of findings.

    Attributes:
        names: Their names.
        rates: Their learning rates, None for the recipe's.
        blocks: Most levels that one of them reads.
        needs_patches: Whether one of them looks at single patches.
        alive: Which of them have not been dropped, (n,) bool.
        chosen: Number of the best one, -1 until it is known; of a single one 0.

    Raises:
        InputError: If two have one name, or a name is taken.
    """

    alive: Tensor
    chosen: Tensor

    def __init__(
        self, candidates: Sequence[Candidate], dims: Sequence[int], n_findings: int
    ) -> None:
        state = torch.get_rng_state()
        heads = []
        for candidate in candidates:
            torch.set_rng_state(state)
            heads.append(candidate.make(dims, n_findings))
        super().__init__(heads)
        self.names = [
            _name(candidate, head) for candidate, head in zip(candidates, heads, strict=True)
        ]
        if len(set(self.names)) < len(self.names) or set(self.names) & set(_TAKEN):
            raise InputError(
                f"candidates need names of their own, other than {' and '.join(_TAKEN)}, got "
                f"{', '.join(self.names)}"
            )
        self.rates = [candidate.lr for candidate in candidates]
        self.blocks = max(head.blocks for head in heads)
        self.needs_patches = any(head.needs_patches for head in heads)
        self.register_buffer("alive", torch.ones(len(heads), dtype=torch.bool))
        self.register_buffer("chosen", torch.tensor(0 if len(heads) == 1 else -1))

    def head(self, number: int) -> ClassificationHead:
        """Return one head."""
        return cast(ClassificationHead, self[number])

    def logits(self, number: int, levels: Sequence[Tokens]) -> Tensor:
        """Return the logits (B, F) of one head, given the last ``blocks`` levels."""
        head = self.head(number)
        logits: Tensor = head(self.read(number, levels))
        return logits.float()

    def read(self, number: int, levels: Sequence[Tokens]) -> list[Tokens]:
        """Return those of the last ``blocks`` levels that one head reads."""
        return list(levels)[len(levels) - self.head(number).blocks :]

    @property
    def best(self) -> int:
        """Number of the one that did best on validation.

        Raises:
            InputError: If none of several has been chosen.
        """
        number = int(self.chosen)
        if number < 0:
            raise InputError(
                f"none of the {len(self)} candidates has been chosen, since no validation could "
                "score them: fit them with validation images first, or give the checkpoint of "
                "that run (ckpt_path)"
            )
        return number

    def choose(self, scores: Sequence[float]) -> bool:
        """Choose the one with the highest score, of those that have one and are not dropped.

        Returns:
            Whether there is one; otherwise the choice stays as it is.
        """
        alive = self.alive.tolist()
        usable = {
            number: score
            for number, score in enumerate(scores)
            if alive[number] and math.isfinite(score)
        }
        if usable:
            self.chosen.fill_(max(usable, key=usable.__getitem__))
        return bool(usable)

    def losses(
        self, levels: Sequence[Tokens], loss: Callable[[Tensor, int], Tensor]
    ) -> list[Tensor]:
        """Return the loss of each, 0 with gradients of 0 for those that are dropped.

        Args:
            levels: The last ``blocks`` levels.
            loss: Gives the loss of logits (B, F) of a candidate by its number.
        """
        alive = self.alive.tolist()
        found: dict[int, Tensor] = {}
        for number in range(len(self)):
            if alive[number]:
                with _drawing_alike(levels[-1].patches.device, last=number + 1 == len(self)):
                    found[number] = loss(self.logits(number, levels), number)
        if len(self) > 1:
            broken = torch.zeros(len(self), device=self.alive.device)
            for number, value in found.items():
                broken[number] = ~torch.isfinite(value.detach())
            # All processes have to drop the same ones.
            self._drop(all_sum(broken).tolist(), "loss")
            alive = self.alive.tolist()
        # Every parameter takes part in the backward pass, as DDP needs it.
        return [found[n] if alive[n] else _nothing(self.head(n)) for n in range(len(self))]

    def drop_broken_gradients(self) -> None:
        """Drop those whose gradient is not finite; call it when all processes have the same."""
        if len(self) == 1:
            return
        norms = [_gradient_norm(head).to(self.alive.device) for head in self]
        self._drop((~torch.isfinite(torch.stack(norms))).tolist(), "gradient")

    def forget_gradients(self) -> None:
        """Take away the gradients of dropped ones, so that no optimiser moves their weights."""
        for head, alive in zip(self, self.alive.tolist(), strict=True):
            for parameter in () if alive else head.parameters():
                parameter.grad = None

    def _drop(self, broken: Sequence[float], what: str) -> None:
        """Drop those that are broken; where no other is left, it is a matter for the whole run."""
        alive = self.alive.tolist()
        numbers = [n for n in range(len(self)) if broken[n] and alive[n]]
        if len(numbers) == sum(alive):
            return
        for number in numbers:
            rank_zero_warn(
                f"The {what} of candidate {self.names[number]} is not finite any more: it is "
                "dropped, the others go on."
            )
            self.alive[number] = False
            with torch.no_grad():
                for parameter in self.head(number).parameters():
                    parameter.zero_()


def make_candidates(
    heads: Mapping[str, NewHead] | Mapping[None, NewHead], learning_rates: Sequence[float] | None
) -> list[Candidate]:
    """Return each head with each learning rate.

    Args:
        heads: Heads by name; None calls one by its class.
        learning_rates: Learning rates; None for the recipe's.

    Raises:
        InputError: If there is no head, or a learning rate is not positive and finite.
    """
    if not heads:
        raise InputError("a classification needs at least one head: candidates is empty")
    if learning_rates is None:
        return [Candidate(name, make, None) for name, make in heads.items()]
    rates = list(learning_rates)
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise InputError(f"learning_rates must be positive and finite, got {rates}")
    return [Candidate(name, make, rate) for name, make in heads.items() for rate in rates]


def _drawing_alike(device: torch.device, *, last: bool) -> AbstractContextManager[None]:
    """Return what makes the next candidate draw the same random numbers, if there is a next."""
    devices = [device] if device.type == "cuda" else []
    return torch.random.fork_rng(devices, enabled=not last)


def _nothing(head: nn.Module) -> Tensor:
    """Return 0 with gradients of 0."""
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return torch.stack([(parameter * 0).sum() for parameter in trained]).sum()


def _gradient_norm(head: nn.Module) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in head.parameters() if p.grad is not None])


def _name(candidate: Candidate, head: ClassificationHead) -> str:
    name = candidate.name or type(head).__name__
    return name if candidate.lr is None else f"{name}_lr{candidate.lr:g}"

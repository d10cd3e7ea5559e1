"""Softmax with a moving centre: the other way to keep the teacher from collapsing."""

from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor, nn

from cxrssl.losses.distributed import all_sum

__all__ = ["SoftmaxCentering"]


class SoftmaxCentering(nn.Module):
    """Teacher probabilities softmax((logits - c) / temperature) with a moving average c of logits.

    The probabilities are computed with the centre as it was before the step; what the step has seen
    is added up in :meth:`observe` and moves the centre once, in :meth:`update`. This equals the
    lagged update of the DINOv2 code, and with gradient accumulation the centre still moves once.
    The centre stays in float32 where the model is converted to half precision.

    Args:
        n_prototypes: K.
        momentum: Share of the old centre kept at an update.
        reduction: ``rank`` averages over the rows of each process and then over processes, as
            DINOv2 does (processes with fewer masked patches weigh more); ``global`` averages over
            all rows, so that several processes equal one.
    """

    center: Tensor
    pending: Tensor
    pending_weight: Tensor

    def __init__(
        self,
        n_prototypes: int,
        momentum: float = 0.9,
        reduction: Literal["rank", "global"] = "rank",
    ) -> None:
        super().__init__()
        if reduction not in ("rank", "global"):
            raise ValueError(f"reduction must be 'rank' or 'global', got {reduction!r}")
        self.momentum = momentum
        self.reduction = reduction
        self.register_buffer("center", torch.zeros(n_prototypes, dtype=torch.float32))
        for name, size in (("pending", n_prototypes), ("pending_weight", 1)):
            zeros = torch.zeros(size, dtype=torch.float32)
            self.register_buffer(name, zeros, persistent=False)

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Return probabilities (..., K) float32 of teacher logits (..., K)."""
        return ((logits.float() - self.center) / temperature).softmax(-1)

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Add rows (..., K) of teacher logits to what the next update averages."""
        rows = logits.flatten(0, -2).float()
        if self.reduction == "rank":
            if len(rows):
                self.pending += rows.mean(0)
            self.pending_weight += 1
        else:
            self.pending += rows.sum(0)
            self.pending_weight += len(rows)

    @torch.no_grad()
    def update(self) -> None:
        """Move the centre towards the mean of the rows observed since the last update."""
        weight = all_sum(self.pending_weight)
        total = all_sum(self.pending)
        mean = total / weight.clamp(min=1)
        moved = self.center * self.momentum + mean * (1 - self.momentum)
        self.center.copy_(torch.where(weight > 0, moved, self.center))
        self.forget()

    def forget(self) -> None:
        """Drop the rows observed since the last update."""
        self.pending.zero_()
        self.pending_weight.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but do not round with it: sums over many rows need float32."""

        def unrounded(buffer: Tensor) -> Tensor:
            moved = fn(buffer)
            rounded = moved.dtype in (torch.bfloat16, torch.float16)
            return buffer.to(moved.device) if rounded else moved

        super()._apply(unrounded, recurse)  # type: ignore[no-untyped-call]
        return self

"""Reductions over all processes; each is the identity when only one runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

__all__ = ["all_max", "all_sum", "alone", "gather_rows", "sum_with_gradient", "world_size"]

_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Act as if this process were the only one, for what others do not take part in."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """Return the number of processes that train together; 1 outside distributed training."""
    if _alone:
        return 1
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_sum(values: Tensor) -> Tensor:
    """Return the sum of ``values`` over processes, without gradient and without changing it."""
    values = values.detach()
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total


def all_max(values: Tensor) -> Tensor:
    """Return the maximum of ``values`` over processes, without gradient and without changing it."""
    values = values.detach()
    if world_size() == 1:
        return values
    largest = values.clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


class _GatherRows(torch.autograd.Function):
    """All-gather whose backward adds up what every process has to say about this one's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total.chunk(world_size())[dist.get_rank()]


def gather_rows(rows: Tensor) -> Tensor:
    """Return the rows (B, ...) of all processes, (W * B, ...), in order of rank, with gradient.

    Every process must hold the same number of rows.
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _SumWithGradient(torch.autograd.Function):
    """All-reduce whose backward is the same: every process used the sum."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.contiguous().clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total


def sum_with_gradient(values: Tensor) -> Tensor:
    """Return the sum of ``values`` (...) over processes, with gradient.

    As for :func:`gather_rows`, the gradient is that of the sum of all processes' losses. Where each
    computes the same loss from the sum, the mean of parameter gradients that DDP takes is the
    gradient one process would find.
    """
    if world_size() == 1:
        return values
    total: Tensor = _SumWithGradient.apply(values)
    return total

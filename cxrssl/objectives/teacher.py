"""The moving average of a network."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cxrssl.schedules import Schedule

__all__ = ["Teacher"]


class Teacher(nn.Module):
    """A copy of a module that follows it as an exponential moving average.

    The copy starts equal, shares no storage, takes no gradient and stays in evaluation mode. Only
    parameters are averaged; buffers are copied.

    Args:
        module: What is copied.
        momentum: Share of the old teacher kept at an update, as a schedule or a constant.
    """

    def __init__(self, module: nn.Module, momentum: Schedule | float) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.momentum = momentum if isinstance(momentum, Schedule) else Schedule(momentum)

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode whatever the mode of the parent."""
        return super().train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the averaged module."""
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, student: nn.Module, progress: float, steps: int | None = None) -> float:
        """Move towards the student by 1 - momentum and return the momentum.

        Args:
            student: Module of the same structure as the one copied.
            progress: Share of the run that is done.
            steps: Length of the run, see :class:`Schedule`.
        """
        momentum = self.momentum(progress, steps)
        own = [_own_share(p) for p in self.module.parameters()]
        other = [_own_share(p) for p in student.parameters()]
        torch._foreach_lerp_(own, other, 1 - momentum)
        for mine, theirs in zip(self.module.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
        return momentum

    @torch.no_grad()
    def restart(self, student: nn.Module) -> None:
        """Become equal to the student again."""
        self.module.load_state_dict(student.state_dict())


def _own_share(parameter: Tensor) -> Tensor:
    """Return what this process holds of a parameter: all, where it is not sharded."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter

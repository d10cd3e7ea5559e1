"""The moving average of a network."""

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cxrssl.schedules import Schedule

__all__ = ["Teacher"]

_HALF = (torch.bfloat16, torch.float16)


class Teacher(nn.Module):
    """A copy of a module that follows it as an exponential moving average.

    The copy starts equal, shares no storage, takes no gradient and stays in evaluation mode. Only
    parameters are averaged; buffers are copied.

    A step of the average is smaller than half precision can represent. Where the parameters are in
    half precision (``bf16-true``), the averages are kept in float32 beside them, and the
    parameters are those averages, rounded: 6 bytes a parameter, where float32 takes 4.
    The state dict then holds the averages under the names of the parameters, so that a run resumes
    exactly and a stage of another precision takes them over.

    Args:
        module: What is copied.
        momentum: Share of the old teacher kept at an update, as a schedule or a constant.
    """

    def __init__(self, module: nn.Module, momentum: Schedule | float) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.momentum = momentum if isinstance(momentum, Schedule) else Schedule(momentum)
        # No buffers: DDP would send them at every step, and they are the same on all processes.
        self._averages: dict[str, Tensor] = {}
        self.register_state_dict_post_hook(_save_averages)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_load_averages)  # type: ignore[no-untyped-call]

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
        own: list[Tensor] = []
        other: list[Tensor] = []
        pairs = zip(self.module.named_parameters(), student.parameters(), strict=True)
        for (name, mine), theirs in pairs:
            if mine.dtype in _HALF:
                # One by one, so that no second float32 copy of the network is ever held.
                average = self._averages[name] = self._average(name, mine)
                mine.copy_(average.lerp_(theirs.float(), 1 - momentum))
            else:
                own.append(_own_share(mine))
                other.append(_own_share(theirs))
        if own:
            torch._foreach_lerp_(own, other, 1 - momentum)
        for kept, new in zip(self.module.buffers(), student.buffers(), strict=True):
            kept.copy_(new)
        return momentum

    @torch.no_grad()
    def restart(self, student: nn.Module) -> None:
        """Become equal to the student again."""
        self.module.load_state_dict(student.state_dict())
        self._averages = {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Convert or move the copy; what rounding takes off the parameters is kept.

        Lightning loads a checkpoint before it converts the model to the run's precision.
        """
        named = list(self.module.named_parameters())
        before = {name: p.detach() for name, p in named if p.dtype not in _HALF}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, parameter in self.module.named_parameters():
            if name in before and parameter.dtype in _HALF:
                self._averages[name] = before[name].to(parameter.device, torch.float32)
        return self

    def _average(self, name: str, parameter: Tensor) -> Tensor:
        """Return the float32 average behind a parameter of half precision.

        What has been written into the parameter since the last update, such as other weights,
        counts as it is.
        """
        known = self._averages.get(name, parameter).to(parameter.device, torch.float32)
        unchanged = known.to(parameter.dtype) == parameter
        return torch.where(unchanged, known, parameter.float())


@torch.no_grad()
def _save_averages(teacher: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Put the averages into a state dict in the place of the rounded parameters."""
    assert isinstance(teacher, Teacher)
    for name, parameter in teacher.module.named_parameters():
        if name in teacher._averages and parameter.dtype in _HALF:
            state[f"{prefix}module.{name}"] = teacher._average(name, parameter)


@torch.no_grad()
def _load_averages(teacher: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the averages out of a state dict, which holds more of them than the parameters can."""
    assert isinstance(teacher, Teacher)
    found = {
        name: (parameter, state.get(f"{prefix}module.{name}"))
        for name, parameter in teacher.module.named_parameters()
        if parameter.dtype in _HALF
    }
    teacher._averages = {
        name: value.to(parameter.device, torch.float32, copy=True)
        for name, (parameter, value) in found.items()
        if value is not None and value.shape == parameter.shape
    }


def _own_share(parameter: Tensor) -> Tensor:
    """Return what this process holds of a parameter: all, where it is not sharded."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter

"""Keeps batch norms' running statistics clean of steps that are skipped."""

import torch
from torch import Tensor, nn

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """What batch norms knew before a step, to be put back if the step is skipped.

    A forward pass writes into them at once, so that one value that is not finite would stay in
    every evaluation from then on.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Tensor]] | None = None

    def keep(self, module: nn.Module) -> None:
        """Take note of all statistics below a module, once a step."""
        if self._kept is None:
            buffers = [
                buffer
                for part in module.modules()
                if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training
                for buffer in part.buffers(recurse=False)
            ]
            self._kept = [(buffer, buffer.clone()) for buffer in buffers]

    @torch.no_grad()
    def close(self, *, restore: bool) -> None:
        """End the step, and put back what was kept if it is to be as if it had not been."""
        for buffer, before in self._kept or [] if restore else []:
            buffer.copy_(before)
        self._kept = None

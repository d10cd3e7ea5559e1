"""Scheduled values: pure functions of the share of a run that is done."""

import math
from dataclasses import dataclass

from cxrssl.errors import InputError

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A value that is zero while frozen, warms up linearly and then follows a half cosine.

    ``value`` is reached at the end of the warm-up and moves to ``final`` by the end of the run.
    With ``final`` left out the value stays constant after the warm-up. All durations are shares of
    the run, so a schedule stretches with it.

    Args:
        value: Value after the warm-up.
        final: Value at the end of the run; ``value`` if left out.
        start: Value at the start of the warm-up.
        warmup: Share of the run spent in warm-up, in [0, 1].
        freeze: Share of the run before the warm-up in which the value is 0, in [0, 1].
    """

    value: float
    final: float | None = None
    start: float = 0.0
    warmup: float = 0.0
    freeze: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup <= 1 and 0 <= self.freeze <= 1 and self.warmup + self.freeze <= 1):
            raise InputError(
                "warmup and freeze are shares of the run that add up to at most 1, "
                f"got warmup={self.warmup} and freeze={self.freeze}"
            )

    def __call__(self, progress: float, steps: int | None = None) -> float:
        """Return the value at ``progress``.

        With ``steps`` the run is a table of that many entries, as DINOv2 tabulates it: the warm-up
        is a linear grid that includes both of its ends, so ``value`` appears twice, and ``final``
        is reached only after the last step. Without, the limit of many steps is returned.

        Args:
            progress: Share of the run that is done; below 0 and above 1 the ends apply.
            steps: Length of the run in optimiser steps.
        """
        final = self.value if self.final is None else self.final
        if progress >= 1:
            return final
        if steps is None:
            return self._continuous(max(progress, 0.0), final)
        frozen, warm = round(self.freeze * steps), round(self.warmup * steps)
        step = round(max(progress, 0.0) * steps)
        if step < frozen:
            return 0.0
        if step < frozen + warm:
            share = (step - frozen) / (warm - 1) if warm > 1 else 0.0
            return self.start + (self.value - self.start) * share
        return _half_cosine(self.value, final, (step - frozen - warm) / (steps - frozen - warm))

    def _continuous(self, progress: float, final: float) -> float:
        if progress < self.freeze:
            return 0.0
        if progress < self.freeze + self.warmup:
            share = (progress - self.freeze) / self.warmup
            return self.start + (self.value - self.start) * share
        rest = 1 - self.freeze - self.warmup
        return _half_cosine(self.value, final, (progress - self.freeze - self.warmup) / rest)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))

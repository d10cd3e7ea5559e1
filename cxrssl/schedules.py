"""Scheduled values: pure functions of the share of a run that is done."""

import math
from dataclasses import dataclass
from typing import Literal

from cxrssl.errors import InputError

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """A value that is zero while frozen, warms up linearly and then follows a half cosine or line.

    ``value`` is reached at the end of the warm-up and moves to ``final`` by the end of the run.
    With ``final`` left out the value stays constant after the warm-up. All durations are shares of
    the run, so a schedule grows and shrinks with it.

    In a config, what a schedule leaves out is taken from the objective's default schedule.

    Args:
        value: Value after the warm-up.
        final: Value at the end of the run; ``value`` if left out.
        start: Value at the start of the warm-up.
        warmup: Share of the run spent in warm-up, in [0, 1].
        freeze: Share of the run before the warm-up in which the value is 0, in [0, 1].
        stretch: Length, in runs, over which the part after the warm-up is laid out, at least 1.
            Above 1 only the beginning of it is used and ``final`` is not reached (CheXWorld uses
            1.25; I-JEPA's ipe_scale). Warm-up and freeze are not stretched. With 1 + ``warmup`` the
            part after the warm-up is laid out over one whole run, as MLVICX's code does.
        shape: ``cosine`` or ``linear``, from ``value`` to ``final``.
        from_one: Whether a run of known length counts its steps from 1, so that step s of n has the
            value at (s + 1) / n (I-JEPA's rate and decay).
        warmup_end: Whether the warm-up's table includes its end, so that ``value`` appears twice
            (DINOv2, CheXWorld). Without, step s of a warm-up of w steps stands at s / w of the way
            and ``value`` appears once, at step w (VICReg, MLVICX). Of no effect with ``from_one``.

    Raises:
        InputError: If the shares do not fit the run, or an option is out of range.
    """

    value: float
    final: float | None = None
    start: float = 0.0
    warmup: float = 0.0
    freeze: float = 0.0
    stretch: float = 1.0
    shape: Literal["cosine", "linear"] = "cosine"
    from_one: bool = False
    warmup_end: bool = True

    def __post_init__(self) -> None:
        if not (0 <= self.warmup <= 1 and 0 <= self.freeze <= 1 and self.warmup + self.freeze <= 1):
            raise InputError(
                "warmup and freeze are shares of the run that add up to at most 1, "
                f"got warmup={self.warmup} and freeze={self.freeze}"
            )
        if not 1 <= self.stretch < math.inf:
            raise InputError(
                f"stretch is the length of the curve in runs, at least 1, got {self.stretch}"
            )
        if self.shape not in _SHAPES:
            raise InputError(f"shape must be 'cosine' or 'linear', got {self.shape!r}")

    def __call__(self, progress: float, steps: int | None = None) -> float:
        """Return the value at ``progress``.

        With ``steps`` the run is a table of that many entries, as DINOv2 and CheXWorld tabulate it:
        the warm-up is a linear grid that includes both of its ends, so ``value`` appears twice (see
        ``warmup_end``), and ``final`` is reached only after the last step. Without, the limit of
        many steps is returned. ``from_one`` replaces the table by the limit, read at the end of
        each step.

        Args:
            progress: Share of the run that is done; below 0 and above 1 the ends apply.
            steps: Length of the run in optimiser steps.
        """
        progress = min(max(progress, 0.0), 1.0)
        if steps is None:
            return self._limit(progress)
        step = round(progress * steps)
        if self.from_one:
            return self._limit(min((step + 1) / steps, 1.0))
        warm = round(self.warmup * steps)
        ramp = warm - 1 if self.warmup_end else warm
        return self._at(step, steps, round(self.freeze * steps), warm, ramp)

    def _limit(self, progress: float) -> float:
        return self._at(progress, 1.0, self.freeze, self.warmup, ramp=self.warmup)

    def _at(self, time: float, length: float, frozen: float, warm: float, ramp: float) -> float:
        """Return the value at a time of a run of this length, all in one unit.

        The way from ``start`` to ``value`` takes ``ramp``.
        """
        if time >= length and self.stretch == 1:
            return self._after_warmup(1.0)
        if time < frozen:
            return 0.0
        if time < frozen + warm:
            return _line(self.start, self.value, (time - frozen) / ramp if ramp > 0 else 0.0)
        rest = self.stretch * length - frozen - warm
        return self._after_warmup((time - frozen - warm) / rest)

    def _after_warmup(self, share: float) -> float:
        final = self.value if self.final is None else self.final
        return _SHAPES[self.shape](self.value, final, share)


def _line(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * share))


_SHAPES = {"cosine": _half_cosine, "linear": _line}

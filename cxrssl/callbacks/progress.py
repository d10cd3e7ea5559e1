"""A progress bar that says how fast training is, what it waits for, and when it is done."""

import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor

from cxrssl.callbacks.device_speed import peak_flops
from cxrssl.callbacks.estimate import RunEstimate
from cxrssl.callbacks.scalars import log_interval, log_scalars

__all__ = ["ProgressBar", "count_images"]

_WINDOW = 50


class ProgressBar(TQDMProgressBar):
    """Shows the loss, images per second, the share of time spent waiting for data, and the ETA.

    All are taken over the last 50 batches, without the first of a run (it warms up) and without
    validation, probes and checkpoints. Waiting is the time between two batches: on a GPU that is
    the bottleneck it is near 0, since the processor waits for it elsewhere. The speed is logged as
    ``speed/images_per_s`` (over all processes) and ``speed/data_wait``. With a :class:`RunEstimate`
    and a GPU whose peak is known also ``speed/mfu``, the share of the peak that is used (model
    FLOPs utilisation: what is recomputed or waited for does not count).

    Args:
        refresh_rate: Batches between two updates; each reads the loss and so waits for the GPU.
        leave: Keep the bar of every epoch on the screen.
    """

    def __init__(self, refresh_rate: int = 10, *, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self._batches: deque[tuple[int, float, float]] = deque(maxlen=_WINDOW)
        self._last_end: float | None = None
        self._started = 0.0
        self._loss: Tensor | None = None
        self._steps = math.inf
        self._peak: float | None = None

    @property
    def images_per_s(self) -> float:
        """Images per second over all processes; 0 before the second batch."""
        seconds = sum(wait + work for _, wait, work in self._batches)
        world_size = self.trainer.world_size
        return world_size * sum(n for n, _, _ in self._batches) / seconds if seconds else 0.0

    @property
    def data_wait(self) -> float:
        """Share of the time in which no batch was there, in [0, 1]."""
        waited = sum(wait for _, wait, _ in self._batches)
        seconds = waited + sum(work for _, _, work in self._batches)
        return waited / seconds if seconds else 0.0

    @property
    def mfu(self) -> float | None:
        """Share of the devices' peak that is used; None where either is not known."""
        flops = _flops_per_image(self.trainer)
        if not self._peak or not flops:
            return None
        return self.images_per_s * flops / (self._peak * self.trainer.world_size)

    @property
    def seconds_left(self) -> float:
        """Seconds to the end of the run; infinite where the run has no end or is not timed yet."""
        if not self._batches:
            return math.inf
        seconds = sum(wait + work for _, wait, work in self._batches) / len(self._batches)
        left = self._steps - self.trainer.global_step
        return max(left, 0) * seconds * self.trainer.accumulate_grad_batches

    def restart_clock(self) -> None:
        """Leave the time since the last batch out of the measurement."""
        self._last_end = None

    def on_train_start(self, *args: Any) -> None:
        """Start the bar and learn how long the run is."""
        super().on_train_start(*args)
        self._steps = self.trainer.estimated_stepping_batches
        device = self.trainer.strategy.root_device
        if device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            self._peak = peak_flops(name, str(self.trainer.precision))
        self._batches.clear()
        self.restart_clock()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the time at which the batch is there."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the time at which the batch is done, log, and update the bar."""
        now = time.perf_counter()
        if self._last_end is not None:
            wait = self._started - self._last_end
            self._batches.append((count_images(batch), wait, now - self._started))
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._loss = loss if isinstance(loss, Tensor) else None
        every = log_interval(trainer)
        if self._batches and every and (batch_idx + 1) % every == 0:
            log_scalars(trainer, self.speed())
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._last_end = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Do not count what lies between epochs."""
        super().on_train_epoch_start(trainer, *args)
        self.restart_clock()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not count validation."""
        super().on_validation_end(trainer, pl_module)
        self.restart_clock()

    def on_save_checkpoint(self, *args: Any) -> None:
        """Do not count the writing of checkpoints."""
        self.restart_clock()

    def speed(self) -> dict[str, float]:
        """Return the speed under the names it is logged by."""
        speed = {"speed/images_per_s": self.images_per_s, "speed/data_wait": self.data_wait}
        return speed if self.mfu is None else speed | {"speed/mfu": self.mfu}

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands behind the bar."""
        shown = {"loss": f"{float(self._loss):.4g}"} if self._loss is not None else {}
        others = super().get_metrics(trainer, pl_module)
        metrics = shown | {k: v for k, v in others.items() if k not in ("v_num", "loss")}
        if self._batches:
            metrics["img/s"] = f"{self.images_per_s:.3g}"
            metrics["wait"] = f"{self.data_wait:.0%}"
            if self.mfu is not None:
                metrics["mfu"] = f"{self.mfu:.0%}"
        if math.isfinite(self.seconds_left):
            minutes = math.ceil(self.seconds_left / 60)
            metrics["eta"] = f"{minutes // 60:02d}:{minutes % 60:02d}"
        return metrics


def _flops_per_image(trainer: Any) -> float:
    """Return the operations of an image that the run's estimate found; 0 without one."""
    callbacks = getattr(trainer, "callbacks", [])
    return next((c.flops_per_image for c in callbacks if isinstance(c, RunEstimate)), 0.0)


def count_images(batch: Any) -> int:
    """Return the rows of the first tensor in a batch, nested or not; 0 where there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 0
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        return next((n for part in batch if (n := count_images(part))), 0)
    return 0

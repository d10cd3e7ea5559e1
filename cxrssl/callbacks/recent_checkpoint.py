"""A checkpoint every few minutes, in the midst of an epoch."""

from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["RECENT", "RecentCheckpoint"]

RECENT = "recent"
"""Name, without suffix, of the one checkpoint within an epoch."""


class RecentCheckpoint(ModelCheckpoint):
    """Writes ``recent.ckpt`` as often as asked for, each in the place of the one before.

    Only whole optimiser steps are saved. Lightning's time counts micro-batches, and a checkpoint
    between two of them lacks the gradients that were accumulated: a run would go on with half of
    a step.

    Args:
        every: Time between two checkpoints.
    """

    def __init__(self, every: timedelta = timedelta(minutes=15)) -> None:
        super().__init__(filename=RECENT, train_time_interval=every, enable_version_counter=False)
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Know which steps were done before."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the time has come and a step was done."""
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

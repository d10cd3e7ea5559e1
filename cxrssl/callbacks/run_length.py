"""The length of a run in images."""

import math

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from cxrssl.errors import InputError

__all__ = ["RunLength"]


class RunLength(Callback):
    """Ends the run after a number of images, whatever the batch and the number of processes.

    The number is turned into optimiser steps before the schedules are made, rounded up.

    Args:
        images: Images seen, repetitions included.
    """

    def __init__(self, images: int) -> None:
        if images < 1:
            raise InputError(f"images must be positive, got {images}")
        self.images = images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the trainer's number of steps."""
        if stage != "fit":
            return
        per_rank = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
        if per_rank is None:
            raise InputError("RunLength needs a data module that tells its batch_size")
        batch = per_rank * trainer.world_size * trainer.accumulate_grad_batches
        trainer.fit_loop.epoch_loop.max_steps = math.ceil(self.images / batch)
        trainer.fit_loop.max_epochs = -1

"""Callbacks that hurt a run on purpose."""

import os
import signal

from lightning.pytorch.callbacks import Callback


class KillAt(Callback):
    """Kills the process, without any clean-up, at the end of a batch of the given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

"""Keeping the number of checkpoints bounded, however often a run is interrupted."""

import re
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from cxrssl.callbacks.encoder_file import EncoderFile
from cxrssl.callbacks.folders import checkpoint_folders
from cxrssl.callbacks.recent_checkpoint import RECENT
from cxrssl.run_files import remove_leftovers

__all__ = ["Superseded"]

_OF_AN_EPOCH = re.compile(r"epoch=\d+-step=\d+\.ckpt")


class Superseded(Callback):
    """Removes the checkpoints of an interrupted run once the run that goes on has its own.

    Each run has a folder, so that one which is interrupted a hundred times would leave two hundred
    checkpoints. Removed are ``recent.ckpt``, the checkpoint of the last epoch with its link
    ``last.ckpt``, ``encoder.safetensors``, and what was half-written; logs and figures stay. A run
    that had come to its end keeps everything, and so does one whose checkpoints were chosen by
    callbacks of the user.

    Attributes:
        former: The checkpoint that is gone on from; None removes nothing.
    """

    def __init__(self) -> None:
        self.former: Path | None = None
        self._saved = False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave a run alone that had come to its end."""
        steps = checkpoint.get("cxrssl_run", {}).get("total_steps")
        if steps is None or checkpoint["global_step"] >= steps:
            self.former = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note that a checkpoint is about to be written."""
        self._saved = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remove what is superseded once the checkpoint is there."""
        self._remove(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what is superseded."""
        self._remove(trainer)

    def _remove(self, trainer: Trainer) -> None:
        if self.former is None or not self._saved or not trainer.is_global_zero:
            return
        folder = self.former.parent
        own = checkpoint_folders(trainer)
        if folder.resolve() in own or not any(next(f.glob("*.ckpt"), None) for f in own):
            return
        remove_checkpoints(folder)
        self.former = None


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a folder that the default callbacks have written."""
    of_epochs = [path for path in folder.glob("*.ckpt") if _OF_AN_EPOCH.fullmatch(path.name)]
    names = [f"{RECENT}.ckpt", EncoderFile.NAME]
    if len(of_epochs) == 1:  # several were kept on purpose
        names += [of_epochs[0].name, "last.ckpt"]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    remove_leftovers(folder.parent)

"""The encoder alone, beside every checkpoint, in a format without code."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file
from torch import Tensor

from cxrssl.callbacks.contracts import Embeds, as_embeds
from cxrssl.callbacks.folders import checkpoint_folders
from cxrssl.run_files import written_whole
from cxrssl.tasks import Task

__all__ = ["EncoderFile"]


class EncoderFile(Callback):
    """Writes ``encoder.safetensors`` whenever a checkpoint is saved, and at the end of the run.

    The file stands in the folder of the checkpoints, or in the run's folder where none are kept,
    and holds the newest encoder; its metadata entry ``cxrssl`` is the objective's description as
    JSON, and ``cxrssl.run`` says after how many steps and images of which datasets it stands. It
    appears whole or not at all: a kill during the write leaves the previous one. A task on a frozen
    encoder writes none.
    """

    NAME = "encoder.safetensors"

    def __init__(self) -> None:
        self._written_at: int | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the run before."""
        self._written_at = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the encoder that goes with the checkpoint."""
        self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the final encoder."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        objective = as_embeds(pl_module)
        if isinstance(pl_module, Task) and pl_module.frozen:
            return  # the encoder is in the file it came from
        # One step may save several checkpoints.
        if objective is None or self._written_at == trainer.global_step:
            return
        weights, folders = _weights(objective), _folders(trainer)  # on all processes
        if trainer.is_global_zero:
            facts = {"cxrssl": objective.describe(), "cxrssl.run": _run_of(trainer, pl_module)}
            metadata = {key: json.dumps(value, sort_keys=True) for key, value in facts.items()}
            for folder in folders:
                with written_whole(folder / self.NAME) as temporary:
                    save_file(weights, temporary, metadata=metadata)
        self._written_at = trainer.global_step


def _run_of(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return how far a run is and on what, without paths and without patients."""
    index = getattr(getattr(trainer, "datamodule", None), "index", None)
    facts: dict[str, Any] = {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
    }
    global_batch = getattr(pl_module, "global_batch", None)
    if global_batch is not None:
        facts["batch"] = global_batch()
    if index is not None and "split" in index:
        training = index[index["split"] == "train"]
        facts["images"] = len(training)
        if "dataset" in training:
            facts["datasets"] = sorted(map(str, training["dataset"].dropna().unique()))
    return facts


def _weights(objective: Embeds) -> dict[str, Tensor]:
    """Return copies on the CPU, put together from all processes where they are sharded."""
    whole = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in objective.encoder.state_dict().items()
    }
    copied = {name: torch.clone(value.detach().cpu()) for name, value in whole.items()}
    return {name: value.contiguous() for name, value in copied.items()}


def _folders(trainer: Trainer) -> list[Path]:
    return checkpoint_folders(trainer) or [Path(trainer.log_dir or trainer.default_root_dir)]

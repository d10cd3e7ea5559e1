"""Where a run keeps its checkpoints."""

from pathlib import Path

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint

__all__ = ["checkpoint_folders"]


def checkpoint_folders(trainer: Trainer) -> list[Path]:
    """Return the folders of all callbacks that keep checkpoints, none where none are kept."""
    callbacks: list[Checkpoint] = trainer.checkpoint_callbacks
    folders = {folder for c in callbacks if (folder := getattr(c, "dirpath", None))}
    return [Path(folder) for folder in sorted(folders)]

"""Checkpoints that are written whole, and read without running what is in them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH

from cxrssl.backbones.file_kinds import kind_of_file
from cxrssl.backbones.weight_files import read_plain
from cxrssl.errors import FailedRunError, InputError
from cxrssl.run_files.whole_file import written_whole

__all__ = ["CheckpointFiles"]


class CheckpointFiles(TorchCheckpointIO):
    """Reading and writing of checkpoints, a plugin of Lightning's trainer.

    Lightning writes to the folder for temporary files first; where that is another file system, the
    move to the run folder can be interrupted half-way, under the final name. Here a checkpoint
    appears whole or not at all, and the one before it stays until then. Reading never unpickles
    objects, whatever ``weights_only`` says. Addresses such as ``s3://`` are left to Lightning, but
    for that.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            FailedRunError: If it cannot be written, with the path and the system's reason.
        """
        if storage_options is not None or _is_address(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with written_whole(Path(path)) as temporary, temporary.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            reason = _system_error(error)
            if reason is None:
                raise
            raise FailedRunError(
                f"cannot write the checkpoint {path}: {reason.strerror} (errno {reason.errno}). "
                "Checkpoints written before it are whole: mend this, then go on from the newest "
                "with --ckpt_path last"
            ) from error

    def load_checkpoint(
        self,
        path: _PATH,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint.

        Raises:
            InputError: If there is none, or it is broken, holds more than plain data, or is not one
                of Lightning's.
        """
        if _is_address(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        content = read_plain(Path(path), "checkpoint")
        if not isinstance(content, Mapping) or not {"state_dict", "loops"} <= content.keys():
            raise InputError(
                f"{path} is {kind_of_file(Path(path))} but no checkpoint that a run can go on "
                "from: weights alone belong in model.backbone.weights, or in model.init_from where "
                "they are those of a whole objective"
            )
        return dict(content)


def _is_address(path: _PATH) -> bool:
    return "://" in str(path)


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the system's error behind one of torch, which reports it as something else."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error

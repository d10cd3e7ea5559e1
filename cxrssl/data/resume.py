"""Where training stands, by the trainer's counters.

Lightning raises `processed` of a batch before the hook in which checkpoints are written every n
steps and `completed` after it; of an epoch likewise around the hook at its end. What was trained
on is therefore what was processed, and never what the loader has fetched ahead.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer

from cxrssl.data.sampler import PlannedBatchSampler
from cxrssl.errors import InputError

__all__ = ["check_resumed", "close_epoch", "position"]


def position(trainer: Trainer) -> tuple[int, int]:
    """Return the epoch and how many of its batches are trained on; a whole epoch is the next's 0.

    With accumulated gradients a batch is one forward pass, not one optimiser step.
    """
    epochs, batches = _counters(trainer)
    if epochs.processed >= epochs.started:
        # The batch counter is set back only when the next epoch begins.
        return epochs.processed, 0
    if batches.processed >= trainer.num_training_batches:
        return epochs.processed + 1, 0
    return epochs.processed, batches.processed


def close_epoch(trainer: Trainer) -> None:
    """Let a run restored from the end of an epoch begin the next one.

    A trainer given max_steps takes such a checkpoint for one within an epoch and trains a batch
    of the finished epoch. Must be called after the restore and before the loop is reset: while
    the training loader is made.
    """
    epochs, _ = _counters(trainer)
    if epochs.ready == epochs.processed == epochs.completed + 1:
        progress: Any = trainer.fit_loop.epoch_progress
        progress.increment_completed()
        trainer.fit_loop.epoch_loop.restarting = False


def check_resumed(state: Mapping[str, int], sampler: PlannedBatchSampler) -> None:
    """Refuse or warn where a checkpoint's batches are not this run's.

    Args:
        state: The data module's state in the checkpoint.
        sampler: Of this run.

    Raises:
        InputError: If the checkpoint stopped within an epoch of other batches.
    """
    if state["images"] and state["global_batch"] != sampler.global_batch:
        raise InputError(
            f"the checkpoint stopped within an epoch of global batches of "
            f"{state['global_batch']} images, this run makes {sampler.global_batch} "
            "(batch_size x processes): change batch_size to match, or resume from the end of "
            "an epoch"
        )
    now = {"seed": sampler.seed, "n_images": sampler.n_images}
    for name, value in now.items():
        if state[name] != value:
            warnings.warn(
                f"the checkpoint was made with {name} {state[name]}, this run has {value}: "
                "training goes on with another order of the images",
                stacklevel=2,
            )


def _counters(trainer: Trainer) -> tuple[Any, Any]:
    loop = trainer.fit_loop
    return loop.epoch_progress.current, loop.epoch_loop.batch_progress.current

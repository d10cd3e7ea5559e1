"""Where training stands, by the trainer's counters.

Lightning raises `processed` of a batch before the hook in which checkpoints are written every n
steps and `completed` after it; of an epoch likewise around the hook at its end. What was trained
on is therefore what was processed, and never what the loader has fetched ahead.
"""

from typing import Any

from lightning.pytorch import Trainer

__all__ = ["close_epoch", "position"]


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


def _counters(trainer: Trainer) -> tuple[Any, Any]:
    loop = trainer.fit_loop
    return loop.epoch_progress.current, loop.epoch_loop.batch_progress.current

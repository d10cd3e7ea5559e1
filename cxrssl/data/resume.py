"""Where training stands, by the trainer's counters.

Lightning raises `processed` of a batch before the hook in which checkpoints are written every n
steps and `completed` after it; of an epoch likewise around the hook at its end. What was trained
on is therefore what was processed, and never what the loader has fetched ahead.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from cxrssl.data.sampler import PlannedBatchSampler
from cxrssl.errors import InputError

__all__ = ["Recount", "check_resumed", "close_epoch", "position"]


class Recount(Callback):
    """Gives the counters of a restored trainer in the batches of this run, once.

    A checkpoint counts batches of its own run, which had another size if the number of processes
    or of accumulated batches was another. It may also lie within an optimiser step, whose first
    batches are shown again.

    Args:
        state: The data module's state in the checkpoint.
        global_batch: Images per batch over all processes of this run.
    """

    def __init__(self, state: Mapping[str, int], global_batch: int) -> None:
        self.state, self.global_batch = state, global_batch
        self._done = False

    def attach(self, trainer: Any) -> None:
        """Let a trainer call this, for its loops may not have been restored yet."""
        trainer.callbacks.append(self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the counters, after the restore and before the loop of batches reads them."""
        if self._done:
            return
        self._done = True
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress
        restored = progress.current.processed
        done = self.state["images"] // self.global_batch
        # At the end of an epoch the counters still are those of the epoch that has ended.
        if not done and restored >= self.state.get("accumulated", 1):
            done = int(trainer.num_training_batches)
        ended = progress.total.processed - restored
        ended_before = ended * self.state["global_batch"] // self.global_batch - ended
        for counter, moved in ((progress.current, 0), (progress.total, ended_before)):
            for name in ("ready", "started", "processed", "completed"):
                setattr(counter, name, getattr(counter, name) + moved + done - restored)


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

    A trainer given max_steps takes a checkpoint written after an epoch for one within it and trains
    a batch of the finished epoch. Restored from one that was written after the last batch of an
    epoch, it counts the next epoch as the same one, so that the checkpoints of that epoch are of a
    wrong position. Must be called after the restore and before the loop is reset: while the
    training loader is made.
    """
    epochs, batches = _counters(trainer)
    progress: Any = trainer.fit_loop.epoch_progress
    loop: Any = trainer.fit_loop.epoch_loop
    if epochs.ready == epochs.processed == epochs.completed + 1:
        progress.increment_completed()
        loop.restarting = False
    elif (
        batches.ready == batches.processed == batches.completed + 1
        and epochs.ready == epochs.processed + 1
        and loop.batch_progress.is_last_batch
        and loop.restarting
    ):
        progress.increment_processed()
        progress.increment_completed()
        loop.batch_progress.increment_completed()
        loop._batches_that_stepped += 1  # what the logged steps are numbered by
        loop.restarting = False


def check_resumed(state: Mapping[str, int], sampler: PlannedBatchSampler) -> None:
    """Refuse or warn where a checkpoint's batches are not this run's.

    Args:
        state: The data module's state in the checkpoint.
        sampler: Of this run.

    Raises:
        InputError: If the checkpoint stopped within an epoch of other batches.
    """
    before = state["global_batch"] * state.get("accumulated", sampler.accumulated)
    now = sampler.global_batch * sampler.accumulated
    if state["images"] and state["global_batch"] != sampler.global_batch and before != now:
        raise InputError(
            f"the checkpoint stopped within an epoch of global batches of {before} images, this "
            f"run makes {now} (batch_size x processes x accumulate_grad_batches): change one of "
            "them to match, or resume from the end of an epoch"
        )
    for name, value in {"seed": sampler.seed, "n_images": sampler.n_images}.items():
        if state[name] != value:
            warnings.warn(
                f"the checkpoint was made with {name} {state[name]}, this run has {value}: "
                "training goes on with another order of the images",
                stacklevel=2,
            )


def _counters(trainer: Trainer) -> tuple[Any, Any]:
    loop = trainer.fit_loop
    return loop.epoch_progress.current, loop.epoch_loop.batch_progress.current

"""Ending a run that is told to end, so that it can go on later at the very next step."""

import os
import re
import signal
import subprocess
import threading
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from cxrssl.callbacks.folders import checkpoint_folders
from cxrssl.callbacks.recent_checkpoint import RECENT
from cxrssl.errors import FailedRunError

__all__ = ["StopAtSignal"]


class StopAtSignal(Callback):
    """Lets a run that gets a signal finish its optimiser step, write ``recent.ckpt``, and end.

    The signals are SIGTERM, SIGINT (Ctrl-C; a second one ends the run at once), and on SLURM the
    one it sends before the time is up, SIGUSR1, after which the job is queued again by ``scontrol
    requeue``. All processes end after the same step as soon as one of them has got a signal. One
    that comes during a validation or at the end of an epoch takes effect after the next step.

    Lightning by itself ends at SIGTERM without a checkpoint, and at SIGUSR1 saves in the midst of
    whatever it is doing, which no run can go on from as if nothing had been.

    Raises:
        FailedRunError: Once the checkpoint is written, to end the run.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None
        self._requeue_signal: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._step = 0
        self._saved: str | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over from Lightning, which has just registered its own handlers."""
        self._received, self._saved = None, None
        self._step = trainer.global_step
        # Python lets no other thread handle signals.
        if threading.current_thread() is not threading.main_thread():
            return
        self._requeue_signal = _requeue_signal(trainer)
        wanted = [signal.SIGTERM, signal.SIGINT]
        if self._requeue_signal is not None:
            wanted.append(self._requeue_signal)
        self._former = {number: signal.signal(number, self._note) for number in wanted}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint where a step was done and a process has got a signal."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if self._step == getattr(pl_module, "total_steps", None):
            return  # the run ends by itself
        if not self._of_all(trainer, self._received is not None):
            return
        self._saved = self._save(trainer)
        requeued = self._requeue_signal is not None and self._received == self._requeue_signal
        if self._of_all(trainer, requeued) and trainer.is_global_zero:
            _requeue()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the run after a step whose values have been logged."""
        if self._saved is not None:
            name = self._received.name if self._received else "a signal to another process"
            raise FailedRunError(f"stopped by {name} after step {self._step}: {self._saved}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._give_back()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received == signal.SIGINT == number:
            self._give_back()
            raise KeyboardInterrupt
        # After SLURM's signal comes SIGTERM, which must not make the requeuing forgotten.
        if self._received is None or self._received != self._requeue_signal:
            self._received = signal.Signals(number)

    @staticmethod
    def _of_all(trainer: Trainer, here: bool) -> bool:
        """Return whether something holds in any process, the same answer in all of them."""
        return bool(trainer.strategy.reduce_boolean_decision(here, all=False))

    @staticmethod
    def _save(trainer: Trainer) -> str:
        folders = checkpoint_folders(trainer)
        if not folders:
            return "no checkpoint was written, since the run keeps none"
        path = folders[0] / f"{RECENT}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        return f"{path} is written, the same command with --ckpt_path last goes on from it"


def _requeue_signal(trainer: Trainer) -> signal.Signals | None:
    """Return the signal after which the job is to be queued again, None outside of SLURM."""
    # Strategies of one device do not know their environment; only this private place does.
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


def _requeue() -> None:
    """Queue this SLURM job again, or say that it could not be done."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    if not re.fullmatch(r"[0-9]+(_[0-9]+)?", job):
        rank_zero_warn(f"the job cannot be queued again: SLURM_JOB_ID {job!r} is no number")
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"job {job} was not queued again ({error}): submit it once more")
    else:
        rank_zero_info(f"Job {job} is queued again.")

"""What the frozen features are worth during training: kNN and a linear probe on labels."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from cxrssl.analysis import RidgeProbe, multilabel_knn, multilabel_scores
from cxrssl.callbacks.contracts import ProbeData, as_embeds, as_probe_data
from cxrssl.callbacks.features import embed_batches
from cxrssl.callbacks.messages import tell
from cxrssl.callbacks.progress import ProgressBar
from cxrssl.callbacks.scalars import log_scalars, publish_scalars
from cxrssl.callbacks.undisturbed import undisturbed
from cxrssl.errors import InputError

__all__ = ["OnlineProbe"]

_TOLERATED_FALL = 0.01
_GUARDED = "probe/linear/auroc/macro"

Rows = dict[str, NDArray[Any]]


class OnlineProbe(Callback):
    """Measures AUROC and AUPRC of every finding on frozen features, during training.

    The encoder embeds the data module's probe images; a nearest-neighbour classifier and a ridge
    regression learn the findings from the training images and are scored on the validation images
    (on the test images in ``trainer.test``). Training is the same bit for bit with and without the
    probe: it has no parameters, and modes and random numbers are put back.

    Values are logged as ``probe/{knn,linear}/{auroc,auprc}/{macro,<finding>}``, and a
    ``ModelCheckpoint`` may monitor each. Where there is nothing to probe, one warning says why.

    Args:
        every_n_epochs: Epochs between readings.
        every_n_steps: Optimiser steps between readings, instead of epochs; for very long epochs.
        k: Neighbours of the nearest-neighbour classifier.
        pooling: Features of an image: its ``class`` token, its ``mean`` patch token, or ``both``
            side by side, the stronger choice of DINOv2's linear evaluation.
        at_start: Take a reading before the first step too.
        findings: Findings to score; all of them if None.
        guard: Warn once when the linear probe's macro AUROC falls more than 0.01 below its first
            value: continued pretraining is then losing what the weights knew. By default where the
            objective started from weights and not from scratch.

    Attributes:
        features: The first D features (n, D) of the held-out images at the last reading, D the
            encoder's width, on every process.

    Raises:
        InputError: If an interval or ``k`` is not positive.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        *,
        every_n_steps: int | None = None,
        k: int = 20,
        pooling: Literal["class", "mean", "both"] = "both",
        at_start: bool = True,
        findings: Sequence[str] | None = None,
        guard: bool | None = None,
    ) -> None:
        for name, value in (
            ("every_n_epochs", every_n_epochs),
            ("every_n_steps", every_n_steps),
            ("k", k),
        ):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self.every_n_epochs = every_n_epochs
        self.every_n_steps = every_n_steps
        self.k = k
        self.pooling = pooling
        self.at_start = at_start
        self.findings = findings
        self.guard = guard
        self.features: NDArray[np.float32] | None = None
        self._start: float | None = None
        self._latest: dict[str, float] = {}
        self._guard_warned = False
        self._skip_warned = False
        self._last_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the first reading, or give a resumed run the last one of before."""
        self._last_step = trainer.global_step
        if self._latest:
            publish_scalars(trainer, self._latest)
        elif self.at_start:
            self._read_in_training(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a reading where the steps say so."""
        step = trainer.global_step
        # Accumulated micro-batches share an optimiser step.
        if self.every_n_steps and step != self._last_step and step % self.every_n_steps == 0:
            self._read_in_training(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a reading where the epochs say so."""
        if not self.every_n_steps and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._read_in_training(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the validation images in ``trainer.validate``."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._read_in_evaluation(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the test images."""
        self._read_in_evaluation(trainer, pl_module, "test")

    def state_dict(self) -> dict[str, Any]:
        """Return the first value and the latest ones, so that a resumed run knows them."""
        return {
            "start": self._start,
            "latest": dict(self._latest),
            "guard_warned": self._guard_warned,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the values of the run before."""
        self._start = state_dict["start"]
        self._latest = dict(state_dict["latest"])
        self._guard_warned = state_dict["guard_warned"]

    def _read_in_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step
        values = self._read(trainer, pl_module, "val")
        if isinstance(trainer.progress_bar_callback, ProgressBar):
            trainer.progress_bar_callback.restart_clock()
        if values:
            self._latest = values
            log_scalars(trainer, values)
            pretrained = bool(getattr(pl_module, "pretrained", False))
            self._check_guard(values, pretrained if self.guard is None else self.guard)

    def _read_in_evaluation(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        values = self._read(trainer, pl_module, split)
        if values:
            pl_module.log_dict(values, sync_dist=trainer.world_size > 1)

    def _read(self, trainer: Trainer, pl_module: LightningModule, split: str) -> dict[str, float]:
        """Return the scores on a split, the same on all processes; none where none can be had."""
        objective, data = as_embeds(pl_module), as_probe_data(trainer)
        if objective is None or data is None:
            lacks = (
                "module has no embed()" if objective is None else "data module has no probe images"
            )
            return self._skip(f"the {lacks}")
        shard = (trainer.global_rank, trainer.world_size)
        try:
            loaders = [data.probe_dataloader(name, shard=shard) for name in ("train", split)]
        except InputError as error:
            return self._skip(str(error))
        columns = self._columns(data)
        started = time.perf_counter()
        with undisturbed(pl_module):
            train, held_out = (
                embed_batches(trainer, objective, loader, self.pooling) for loader in loaders
            )
        if not (np.isfinite(train["features"]).all() and np.isfinite(held_out["features"]).all()):
            rank_zero_warn(f"Probe at step {trainer.global_step}: features are not finite.")
            return {}
        width = getattr(objective.encoder, "embed_dim", held_out["features"].shape[1])
        self.features = held_out["features"][:, :width]
        scores = self._score(train, held_out, columns) if trainer.is_global_zero else {}
        values = trainer.strategy.broadcast(scores)
        _report(trainer.global_step, values, len(train["labels"]), held_out, split, started)
        return values

    def _columns(self, data: ProbeData) -> dict[str, int]:
        """Return the columns of the findings to score."""
        names = list(data.labels)
        unknown = sorted(set(self.findings or ()) - set(names))
        if unknown:
            raise InputError(
                f"the probe has no labels of {', '.join(unknown)}; findings must be among "
                f"{', '.join(names)}"
            )
        return {name: names.index(name) for name in self.findings or names}

    def _score(self, train: Rows, held_out: Rows, columns: dict[str, int]) -> dict[str, float]:
        chosen = list(columns.values())
        labels, truth = train["labels"][:, chosen], held_out["labels"][:, chosen]
        predictions: dict[str, NDArray[np.floating]] = {
            "knn": multilabel_knn(train["features"], labels, held_out["features"], k=self.k),
            "linear": RidgeProbe().fit(train["features"], labels).predict(held_out["features"]),
        }
        values = {}
        for method, prediction in predictions.items():
            scores = multilabel_scores(prediction, truth, list(columns))
            for measure, areas in (("auroc", scores["auroc"]), ("auprc", scores["auprc"])):
                for name, area in areas.items():
                    values[f"probe/{method}/{measure}/{name.replace(' ', '_')}"] = area
        return values

    def _skip(self, reason: str) -> dict[str, float]:
        if not self._skip_warned:
            rank_zero_warn(f"The online probe is skipped: {reason}.")
            self._skip_warned = True
        return {}

    def _check_guard(self, values: dict[str, float], guard: bool) -> None:
        now = values.get(_GUARDED)
        if now is None:
            return
        if self._start is None:
            self._start = now
        if guard and not self._guard_warned and now < self._start - _TOLERATED_FALL:
            self._guard_warned = True
            rank_zero_warn(
                f"The linear probe's macro AUROC is {now:.3f}, below the {self._start:.3f} it "
                "started with: training is losing what the weights knew. Try a lower learning "
                "rate, a longer warm-up, or stop at the best checkpoint."
            )


def _report(
    step: int, values: dict[str, float], n_train: int, held_out: Rows, split: str, started: float
) -> None:
    """Say the macro scores in one line."""
    parts = [
        f"{label} AUROC {values[f'probe/{method}/auroc/macro']:.3f} "
        f"AUPRC {values[f'probe/{method}/auprc/macro']:.3f}"
        for method, label in (("knn", "kNN"), ("linear", "linear"))
        if f"probe/{method}/auroc/macro" in values
    ] or ["no finding has both classes"]
    tell(
        f"Probe at step {step}: {', '.join(parts)} ({n_train} train, {len(held_out['labels'])} "
        f"{split} images, {time.perf_counter() - started:.1f} s)"
    )

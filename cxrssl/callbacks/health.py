"""Watches a run for collapse, and says so."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis import effective_rank, feature_spread
from cxrssl.callbacks.alarms import Alarms
from cxrssl.callbacks.contracts import as_embeds
from cxrssl.callbacks.probe import OnlineProbe
from cxrssl.callbacks.scalars import log_scalars
from cxrssl.callbacks.undisturbed import undisturbed
from cxrssl.errors import InputError
from cxrssl.gathering import gather_images

__all__ = ["Health"]

_FEWEST_IMAGES = 16
"""A rank over fewer images says little."""


class Health(Callback):
    """Logs what the objective monitors and how much of their space the features use.

    ``health/effective_rank`` is RankMe of the centred features and ``health/feature_spread`` their
    spread over images. They come with every reading of an ``OnlineProbe``; without one, as for
    images without labels, from the training images of the step. All other ``health/*`` values are
    the objective's ``monitored`` scalars, averaged over processes. Alarms see `Alarms`.

    Args:
        every_n_steps: Optimiser steps between readings.
        alarm: ``warn``; ``stop``, to end the run after the warning with its last checkpoint; or
            ``off``, to log only.
        patience: Bad readings of the probe's features in a row before an alarm.
        step_patience: Bad readings of steps in a row before an alarm.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        *,
        alarm: Literal["warn", "stop", "off"] = "warn",
        patience: int = 3,
        step_patience: int = 10,
    ) -> None:
        if every_n_steps < 1:
            raise InputError(f"every_n_steps must be at least 1, got {every_n_steps}")
        if alarm not in ("warn", "stop", "off"):
            raise InputError(f"alarm must be 'warn', 'stop' or 'off', got {alarm!r}")
        self.every_n_steps = every_n_steps
        self.alarm = alarm
        self.alarms = Alarms(patience=patience, step_patience=step_patience)
        self._seen: NDArray[np.float32] | None = None
        self._last_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with this run's steps, and have the objective monitor those that are read."""
        vars(pl_module)["monitor_every"] = self.every_n_steps
        self._last_step = trainer.global_step
        self._seen = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take the reading of a probe since the last step, wherever it stands among callbacks."""
        self._read_probe(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a reading of the step where it is due."""
        step = trainer.global_step
        if step == self._last_step:  # a micro-batch of an accumulated step
            return
        self._last_step = step
        # Objectives monitor the first of every n steps, counted from 0.
        if (step - 1) % self.every_n_steps == 0:
            self._read_monitored(trainer, pl_module)
            if _probe_features(trainer) is None:
                self._read_batch(trainer, pl_module, batch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the reading of the last probe."""
        self._read_probe(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the alarms' state."""
        return self.alarms.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the alarms' state."""
        self.alarms.load_state_dict(state_dict)

    def _read_monitored(self, trainer: Trainer, pl_module: LightningModule) -> None:
        monitored: Mapping[str, Tensor] = getattr(pl_module, "monitored", {})
        if not monitored:
            return
        device = trainer.strategy.root_device
        stacked = torch.stack([value.detach().float().to(device) for value in monitored.values()])
        means: Tensor = trainer.strategy.reduce(stacked, reduce_op="mean")
        values = dict(zip(monitored, means.tolist(), strict=True))
        log_scalars(trainer, {f"health/{name}": value for name, value in values.items()})
        self._raise(trainer, self.alarms.step(values, getattr(pl_module, "prototypes", {})))

    def _read_probe(self, trainer: Trainer) -> None:
        features = _probe_features(trainer)
        if features is not None and features is not self._seen:
            self._seen = features
            self._read_features(trainer, features)

    def _read_batch(self, trainer: Trainer, pl_module: LightningModule, batch: Any) -> None:
        objective, images = as_embeds(pl_module), _first_images(batch)
        if objective is None or images is None:
            return
        with undisturbed(pl_module), trainer.precision_plugin.forward_context():
            own = objective.embed(images).float().cpu().numpy()
        first = trainer.global_rank * len(own)
        features = gather_images({"features": own, "image_number": first + np.arange(len(own))})
        if len(own) * trainer.world_size >= _FEWEST_IMAGES:
            self._read_features(trainer, features["features"])

    def _read_features(self, trainer: Trainer, features: NDArray[np.float32]) -> None:
        if not np.isfinite(features).all():
            return  # the objective counts and reports these steps
        # Equal on all processes but for rounding, so that the first one's counts.
        reading = effective_rank(features, centred=True), feature_spread(features)
        rank, spread = trainer.strategy.broadcast(reading)
        log_scalars(trainer, {"health/effective_rank": rank, "health/feature_spread": spread})
        self._raise(trainer, self.alarms.features(rank, spread))

    def _raise(self, trainer: Trainer, alarms: list[str]) -> None:
        if self.alarm == "off":
            return
        for sentence in alarms:
            rank_zero_warn(f"Step {trainer.global_step}: {sentence}")
        # All processes see the same numbers, so all of them stop.
        if alarms and self.alarm == "stop":
            trainer.should_stop = True


def _probe_features(trainer: Any) -> NDArray[np.float32] | None:
    """Return the newest features of the run's probe."""
    for callback in trainer.callbacks:
        if isinstance(callback, OnlineProbe) and callback.features is not None:
            return callback.features
    return None


def _first_images(batch: Any) -> Tensor | None:
    """Return the first view (B, C, H, W) in a batch of views, nested or not."""
    if isinstance(batch, Tensor):
        if batch.ndim == 5:  # (B, views, C, H, W)
            return batch[:, 0]
        return batch if batch.ndim == 4 else None
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, list | tuple):
        found = (_first_images(part) for part in batch)
        return next((images for images in found if images is not None), None)
    return None

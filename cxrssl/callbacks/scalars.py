"""Sending numbers that were measured outside a training step to whoever listens."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning import Trainer

__all__ = ["log_interval", "log_scalars", "publish_scalars"]


def log_interval(trainer: Any) -> int:
    """Return the batches between two logged steps; 0 where nothing is logged."""
    return int(trainer.log_every_n_steps)


def log_scalars(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Log values at the current optimiser step and publish them.

    Lightning's own ``log`` averages over an epoch or a step and is closed to some hooks.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step=trainer.global_step)
    publish_scalars(trainer, values)


def publish_scalars(trainer: Trainer, values: Mapping[str, float]) -> None:
    """Offer values to callbacks that monitor a metric, such as ``ModelCheckpoint``."""
    device = trainer.strategy.root_device
    trainer.callback_metrics.update(
        {name: torch.tensor(value, device=device) for name, value in values.items()}
    )

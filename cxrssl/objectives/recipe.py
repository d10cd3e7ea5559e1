"""How an objective is optimised: rates, decay, clipping, and the groups of parameters."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from cxrssl.errors import InputError
from cxrssl.schedules import Schedule

__all__ = ["Recipe", "parameter_groups", "set_rates"]

_FIRST_LAYER = ("pos_embed", "patch_embed", "mask_token", "cls_token", "reg_token")


@dataclass(frozen=True)
class Recipe:
    """AdamW as DINOv2 uses it; the defaults are those of its short recipe.

    Args:
        lr: Learning rate for a global batch of ``reference_batch`` images; only the value after the
            warm-up is scaled to the actual batch, start and end are not.
        lr_scaling: ``sqrt`` or ``linear`` in the global batch, or ``none``.
        reference_batch: Global batch in images at which ``lr`` is taken as it is.
        weight_decay: Weight decay; biases, norms and residual scales have none.
        layer_decay: Factor on the rate from each block to the one below it; 1 for none.
        patch_embed_lr: Further factor on the rate of the patch embedding.
        betas: Of AdamW.
        eps: Of AdamW.
        clip: Largest norm of the gradient of each sub-module; None for no clipping.
        freeze_last_layer: Share of the run in which prototype layers keep their start.
        freeze_backbone_steps: Optimiser steps in which only what is not backbone learns, so that
            fresh heads do not disturb pretrained weights.
        schedule_unit: What schedules count. ``step`` reads every value at the optimiser step.
            ``micro_batch`` matters with accumulated gradients: values are read where the step's
            last micro-batch stands in a table of micro-batches, as CheXWorld does; epochs of an
            odd number of micro-batches shift it by less than a step.
    """

    lr: Schedule = Schedule(4e-3, final=1e-6, warmup=0.1)
    lr_scaling: Literal["sqrt", "linear", "none"] = "sqrt"
    reference_batch: int = 1024
    weight_decay: Schedule = Schedule(0.04, final=0.4)
    layer_decay: float = 0.9
    patch_embed_lr: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = 3.0
    freeze_last_layer: float = 0.01
    freeze_backbone_steps: int = 0
    schedule_unit: Literal["step", "micro_batch"] = "step"

    def __post_init__(self) -> None:
        if self.schedule_unit not in ("step", "micro_batch"):
            raise InputError(
                f"schedule_unit must be 'step' or 'micro_batch', got {self.schedule_unit!r}"
            )

    def scaled_lr(self, global_batch: int) -> Schedule:
        """Return the learning rate schedule for a global batch in images."""
        ratio = global_batch / self.reference_batch
        factor = {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[self.lr_scaling]
        return replace(self.lr, value=self.lr.value * factor)


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], depth: int, recipe: Recipe
) -> list[dict[str, Any]]:
    """Return optimiser groups with their factors on rate and decay, by the names of parameters.

    Block i has layer i + 1, the tokens, positions and patch embedding have layer 0, and everything
    else layer depth + 1; the rate is multiplied by layer_decay^(depth + 1 - layer).

    Args:
        named: Names and parameters; those without gradient are left out.
        depth: Number of blocks of the backbone.
        recipe: The factors.
    """
    groups: dict[tuple[float, float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        lr = recipe.layer_decay ** (depth + 1 - _layer(name, depth))
        if "patch_embed" in name:
            lr *= recipe.patch_embed_lr
        no_decay = name.endswith(".bias") or "norm" in name or "gamma" in name
        key = (lr, float(not no_decay), "last_layer" in name, _is_backbone(name))
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_factor": lr,
            "decay_factor": decay,
            "last_layer": last,
            "backbone": backbone,
        }
        for (lr, decay, last, backbone), parameters in groups.items()
    ]


def set_rates(
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    lr: Schedule,
    progress: float,
    step: int,
    steps: int | None,
) -> tuple[float, float]:
    """Write rate and decay of this step into the groups and return their values before factors."""
    rate = lr(progress, steps)
    decay = recipe.weight_decay(progress, steps)
    frozen_last = progress < recipe.freeze_last_layer
    frozen_backbone = step < recipe.freeze_backbone_steps
    for group in optimizer.param_groups:
        frozen = (group["last_layer"] and frozen_last) or (group["backbone"] and frozen_backbone)
        group["lr"] = 0.0 if frozen else rate * group["lr_factor"]
        group["weight_decay"] = decay * group["decay_factor"]
    return rate, decay


def _is_backbone(name: str) -> bool:
    # The objective's own mask token enters the backbone; a predictor's belongs to the predictor.
    return "backbone" in name.split(".") or name == "mask_token"


def _layer(name: str, depth: int) -> int:
    parts = name.split(".")
    if not _is_backbone(name):
        return depth + 1
    if any(part in _FIRST_LAYER for part in parts):
        return 0
    if "blocks" in parts:
        return int(parts[parts.index("blocks") + 1]) + 1
    return depth + 1

"""How an objective is optimised: rates, decay, clipping, and the groups of parameters."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import nn

from cxrssl.errors import InputError
from cxrssl.objectives.lars import LARS
from cxrssl.schedules import Schedule

__all__ = ["Layered", "Recipe", "build_optimizer", "parameter_groups", "set_rates"]

_PLACE_IN_JOINT = re.compile(r"^objectives\.[^.]+\.")


class Layered(Protocol):
    """What of a backbone the factors on the rate depend on."""

    @property
    def depth(self) -> int:
        """Number of blocks or stages."""

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter, by its name in the backbone.

        The embedding of the image is layer 0, block i layer i + 1, and all else layer depth + 1.
        """


@dataclass(frozen=True)
class Recipe:
    """How an objective is optimised; the defaults are AdamW and DINOv2's short recipe.

    Args:
        lr: Learning rate for a global batch of ``reference_batch`` images; the value after the
            warm-up is scaled to the actual batch, start and end only with ``scale_final``.
        lr_scaling: ``sqrt`` or ``linear`` in the global batch, or ``none``.
        reference_batch: Global batch in images at which ``lr`` is taken as it is.
        weight_decay: Weight decay; biases, norms, residual scales and other vectors have none.
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
        optimizer: ``adamw``, or ``lars`` as VICReg and MLVICX use it; see
            :class:`cxrssl.objectives.lars.LARS`.
        momentum: Of LARS.
        trust: Trust coefficient of LARS.
        scale_final: Whether start and end of the rate are scaled to the batch like its value, as
            VICReg does; DINOv2 scales the value alone.
        compile_blocks: Whether transformer blocks, those of teacher and predictor too, are compiled
            by ``torch.compile``. It takes a minute or so at the start and changes results by
            rounding.

    Raises:
        InputError: If an option is out of range.
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
    optimizer: Literal["adamw", "lars"] = "adamw"
    momentum: float = 0.9
    trust: float = 0.001
    scale_final: bool = False
    compile_blocks: bool = False

    def __post_init__(self) -> None:
        if self.schedule_unit not in ("step", "micro_batch"):
            raise InputError(
                f"schedule_unit must be 'step' or 'micro_batch', got {self.schedule_unit!r}"
            )
        if self.optimizer not in ("adamw", "lars"):
            raise InputError(f"optimizer must be 'adamw' or 'lars', got {self.optimizer!r}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must be in [0, 1), got {self.momentum}")
        if not 0 < self.trust < math.inf:
            raise InputError(f"trust must be positive and finite, got {self.trust}")

    def scaled_lr(self, global_batch: int) -> Schedule:
        """Return the learning rate schedule for a global batch in images."""
        ratio = global_batch / self.reference_batch
        factor = {"sqrt": math.sqrt(ratio), "linear": ratio, "none": 1.0}[self.lr_scaling]
        ends = factor if self.scale_final else 1.0
        final = None if self.lr.final is None else self.lr.final * ends
        return replace(
            self.lr, value=self.lr.value * factor, final=final, start=self.lr.start * ends
        )


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]],
    backbone: Layered,
    recipe: Recipe,
    factor: Callable[[str], float] | None = None,
) -> list[dict[str, Any]]:
    """Return optimiser groups with their factors on rate and decay, by the names of parameters.

    The rate is multiplied by layer_decay^(depth + 1 - layer), where the layer is the backbone's for
    its own parameters, 0 for an objective's mask token, which enters the backbone, and depth + 1
    for everything else. Biases, norms, residual scales and all other vectors and scalars have no
    decay, and LARS does not adapt the rate of vectors and scalars.

    Args:
        named: Names and parameters; those without gradient are left out.
        backbone: Knows the layers of the parameters whose names contain ``backbone``.
        recipe: The factors.
        factor: Further factor on the rate, by name.
    """
    groups: dict[tuple[float, float, bool, bool, bool], list[nn.Parameter]] = {}
    for place, parameter in named:
        if not parameter.requires_grad:
            continue
        name = _PLACE_IN_JOINT.sub("", place)
        lr = recipe.layer_decay ** (backbone.depth + 1 - _layer(name, backbone))
        if "patch_embed" in name:
            lr *= recipe.patch_embed_lr
        lr *= 1.0 if factor is None else factor(place)
        vector = parameter.ndim <= 1
        no_decay = vector or name.endswith(".bias") or "norm" in name or "gamma" in name
        key = (lr, float(not no_decay), "last_layer" in name, _is_backbone(name), not vector)
        groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_factor": lr,
            "decay_factor": decay,
            "last_layer": last,
            "backbone": in_backbone,
            "always_adapt": adapted,  # timm's name
        }
        for (lr, decay, last, in_backbone, adapted), parameters in groups.items()
    ]


def build_optimizer(
    named: Iterable[tuple[str, nn.Parameter]],
    backbone: Layered,
    recipe: Recipe,
    lr: float,
    fused: bool,
    factor: Callable[[str], float] | None = None,
) -> torch.optim.Optimizer:
    """Return the recipe's optimiser of the parameters that have a gradient.

    Args:
        named: Names and parameters, see :func:`parameter_groups`.
        backbone: See :func:`parameter_groups`.
        recipe: What is built; rate and decay are those of :func:`set_rates`, once it is called.
        lr: Learning rate until then.
        fused: Whether AdamW takes its fused step; LARS has none.
        factor: See :func:`parameter_groups`.
    """
    groups = parameter_groups(named, backbone, recipe, factor)
    if recipe.optimizer == "lars":
        return LARS(groups, lr, momentum=recipe.momentum, trust=recipe.trust)
    return torch.optim.AdamW(groups, lr=lr, betas=recipe.betas, eps=recipe.eps, fused=fused)


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
    # An objective's own mask token enters the backbone; a predictor's belongs to the predictor.
    return "backbone" in name.split(".") or name == "mask_token"


def _layer(name: str, backbone: Layered) -> int:
    if name == "mask_token":
        return 0
    if not _is_backbone(name):
        return backbone.depth + 1
    return backbone.layer_of(f".{name}".rpartition(".backbone.")[2])

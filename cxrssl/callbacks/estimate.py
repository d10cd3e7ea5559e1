"""What a run will take of each device, said before its first step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from cxrssl.objectives import FullySharded, Objective, Teacher
from cxrssl.objectives.footprint import Footprint, measure_footprint

__all__ = ["RunEstimate", "advice", "optimizer_bytes", "weight_bytes"]

_HEADROOM = 0.95
"""Share of the free memory that can be used: the allocator loses some between its blocks."""


class RunEstimate(Callback):
    """Says before the first step what it takes: memory of each device, images, operations.

    One micro-batch passes through a copy of the objective on tensors without numbers, with which
    the run itself has nothing in common: its random numbers, statistics and curves are the same
    without this callback. On a GPU with less free memory than that, a warning says what to change.

    The estimate leaves out what the libraries take for themselves, probes and validation, and the
    tensors gathered from other processes. Of a task, only weights and optimiser are told.

    Attributes:
        flops_per_image: Operations of forward and backward pass for an image, 0 where not known.
    """

    def __init__(self) -> None:
        self.flops_per_image = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimate on the first process, and let the others know the operations."""
        flops = 0.0
        if trainer.is_global_zero:
            footprint = _footprint(trainer, pl_module)
            flops = footprint.flops / footprint.images if footprint else 0.0
            _tell(trainer, pl_module, footprint)
        self.flops_per_image = float(trainer.strategy.broadcast(flops))


@dataclass(frozen=True)
class _Weights:
    """Bytes of weights and buffers."""

    trained: int
    frozen: int
    teacher: int


def weight_bytes(module: nn.Module, shards: int = 1) -> _Weights:
    """Return the bytes of what is trained, of moving averages, and of all else.

    Args:
        module: What has the weights.
        shards: Devices that share them.
    """
    tensors = dict.fromkeys([*module.parameters(), *module.buffers()])
    teachers = [part for part in module.modules() if isinstance(part, Teacher)]
    followed = {t for part in teachers for t in [*part.parameters(), *part.buffers()]}
    trained = sum(t.nbytes for t in tensors if t.requires_grad)
    teacher = sum(t.nbytes for t in followed)
    frozen = sum(t.nbytes for t in tensors) - trained - teacher
    return _Weights(trained // shards, frozen // shards, teacher // shards)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int | None:
    """Return the bytes of an optimiser's state after its first step, None where it is not known."""
    parameters = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    if isinstance(optimizer, torch.optim.AdamW | torch.optim.Adam):
        # Two or three averages of the size of a weight, and a count of its steps in float32.
        averages = sum(p.nbytes * (3 if group["amsgrad"] else 2) for p, group in parameters)
        return int(averages + 4 * len(parameters))
    if all("momentum" in group for group in optimizer.param_groups):  # LARS and SGD
        return int(sum(p.nbytes for p, group in parameters if group["momentum"] != 0))
    return None


def advice(trainer: Any, module: Any, footprint: Footprint, room: float) -> list[str]:
    """Return what makes a step fit that does not, the cheapest first.

    Args:
        trainer: The run's trainer.
        module: The objective.
        footprint: What a micro-batch takes.
        room: Bytes that weights and optimiser leave for it; negative where they do not fit.
    """
    changes = []
    if trainer.precision == "32-true":
        changes.append("trainer.precision bf16-mixed (16-mixed before Ampere)")
    changes += [
        f"model.{part}.activation_checkpointing true (recomputes blocks)"
        for part in ("backbone", "predictor")
        if getattr(getattr(module, part, None), "activation_checkpointing", None) is False
    ]
    parts = math.ceil(footprint.peak / room) if room > 0 else math.inf
    divisors = (n for n in range(2, footprint.images + 1) if footprint.images % n == 0)
    parts = next((n for n in divisors if n >= parts), 0)
    if parts:
        accumulated = trainer.accumulate_grad_batches * parts
        changes.append(
            f"data.batch_size {footprint.images // parts} with "
            f"trainer.accumulate_grad_batches {accumulated} (the same images a step)"
        )
    if getattr(module.views, "n_local", 0):
        changes.append(f"fewer local crops than model.views.n_local {module.views.n_local}")
    if footprint.logits > footprint.peak / 4:
        changes.append("fewer prototypes in the heads")
    return [*changes, "a smaller backbone"]


def _footprint(trainer: Trainer, module: LightningModule) -> Footprint | None:
    """Return what a micro-batch takes; None where it cannot be told, which must not end a run."""
    images = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    # A sharded model speaks to other processes when it is used, which do not listen now.
    if images is None or not isinstance(module, Objective) or _shards(trainer) > 1:
        return None
    try:
        return measure_footprint(
            module,
            images,
            accumulates=trainer.accumulate_grad_batches > 1,
            context=trainer.precision_plugin.forward_context,
        )
    except Exception as error:  # an objective of one's own may do what fake tensors cannot
        rank_zero_info(f"The memory of a step could not be estimated: {error}")
        return None


def _shards(trainer: Any) -> int:
    """Return the devices that share the weights between them."""
    sharded = isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy)
    return int(trainer.world_size) if sharded else 1


def _gradient_bytes(trainer: Any, trained: int) -> int:
    """Return the bytes of gradients on one device that trains weights of so many."""
    strategy = trainer.strategy
    kept_whole = isinstance(strategy, FullySharded) and not strategy.reduce_each
    accumulated = kept_whole and trainer.accumulate_grad_batches > 1
    return trained * _shards(trainer) if accumulated else trained


def _tell(trainer: Trainer, module: LightningModule, footprint: Footprint | None) -> None:
    weights = weight_bytes(module, _shards(trainer))
    state = _state_bytes(trainer)
    names = ", ".join(type(optimizer).__name__ for optimizer in trainer.optimizers)
    lines = [
        "Estimate for each device:",
        f"  weights: {_size(weights.trained)} trained, {_size(weights.frozen)} frozen, "
        f"{_size(weights.teacher)} of a teacher; "
        f"gradients: {_size(_gradient_bytes(trainer, weights.trained))}; "
        f"{names}: {'not known' if state is None else _size(state)}",
    ]
    if footprint is None:
        rank_zero_info("\n".join(lines))
        return
    fixed = weights.trained + weights.frozen + weights.teacher + (state or 0) + footprint.views
    if trainer.world_size > 1:
        fixed += weights.trained  # the buckets in which gradients are exchanged
    free = _free_bytes(trainer.strategy.root_device)
    logits = f"; logits over prototypes: up to {_size(footprint.logits)}"
    lines += [
        f"  {footprint.images} images at once: {_size(footprint.peak)} at the peak, gradients "
        f"included; kept for the backward pass: {_size(footprint.saved)}"
        f"{logits if footprint.logits else ''}",
        f"  in all: {_size(fixed + footprint.peak)}"
        + ("" if free is None else f" of {_size(free)} that are free"),
        f"  {_step(trainer, footprint)}",
    ]
    rank_zero_info("\n".join(lines))
    if free is not None:
        _warn_if_full(trainer, module, footprint, fixed, free)


def _warn_if_full(trainer: Any, module: Any, footprint: Footprint, fixed: int, free: int) -> None:
    needed, room = fixed + footprint.peak, _HEADROOM * free
    if needed > room:
        changes = "; ".join(advice(trainer, module, footprint, room - fixed))
        rank_zero_warn(
            f"A step is estimated to take {_size(needed)} of {_size(free)} that are free, and may "
            f"not fit. What helps: {changes}"
        )


def _state_bytes(trainer: Trainer) -> int | None:
    """Return the bytes of all optimisers' state on one device, None where it is not known."""
    states = [optimizer_bytes(optimizer) for optimizer in trainer.optimizers]
    known = [state for state in states if state is not None]
    return sum(known) // _shards(trainer) if len(known) == len(states) else None


def _step(trainer: Trainer, footprint: Footprint) -> str:
    """Return the images, patches and operations of an optimiser step."""
    processes, n = trainer.world_size, trainer.accumulate_grad_batches
    total = f"; over {processes} devices: {_seen(footprint, n * processes)}"
    return (
        f"a step: {_seen(footprint, n)}{total if processes > 1 else ''}; "
        f"{footprint.flops / footprint.images / 1e9:,.4g} GFLOP an image"
    )


def _seen(footprint: Footprint, n: int) -> str:
    """Return the images and patches of n micro-batches."""
    patches = f", {footprint.patches * n:,} patches" if footprint.patches else ""
    return f"{footprint.images * n:,} images{patches}"


def _free_bytes(device: torch.device) -> int | None:
    """Return the bytes this process has or can get on a GPU."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))


def _size(n: float) -> str:
    unit, scale = ("GB", 1e9) if n >= 1e9 else ("MB", 1e6) if n >= 1e6 else ("kB", 1e3)
    return f"{n / scale:,.1f} {unit}" if n else "0"

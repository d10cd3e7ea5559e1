"""What one step of an objective takes, found on tensors that hold no numbers."""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from cxrssl.heads.prototypes import Prototypes
from cxrssl.losses.distributed import alone
from cxrssl.objectives.base import Objective
from cxrssl.objectives.compiling import compile_blocks
from cxrssl.objectives.memory_meter import MemoryMeter
from cxrssl.views import Views

__all__ = ["Footprint", "measure_footprint", "sample_batch"]

_SIDE = 64
"""Pixels of the image the views are made of, whose size their tensors do not depend on."""


@dataclass(frozen=True)
class Footprint:
    """What a micro-batch of an objective takes on one device beside weights and optimiser.

    Attributes:
        images: Images B of the micro-batch.
        patches: Patches of all their views; 0 for a backbone without patches.
        views: Bytes of the micro-batch itself.
        saved: Bytes kept for the backward pass.
        peak: Most bytes in use at once, gradients of the weights included, the batch left out.
        logits: Most bytes in use at once by tensors with one number for each prototype.
        flops: Floating-point operations of forward and backward pass, recomputed ones left out.
    """

    images: int
    patches: int
    views: int
    saved: int
    peak: int
    logits: int
    flops: int


def measure_footprint(
    objective: Objective,
    images: int,
    *,
    accumulates: bool = False,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Footprint:
    """Return what a micro-batch takes, without computing it.

    A copy of the objective goes through a forward and a backward pass on fake tensors, which have
    shapes and a device but no numbers: nothing is allocated, drawn or changed. Processes are left
    out: what is gathered from others is not counted. It is taken in the middle of the run, which
    matters where a joint objective's share is 0 for some time.

    Args:
        objective: What is trained; its device is the one that is estimated.
        images: Images B of the micro-batch.
        accumulates: Whether gradients of an earlier micro-batch are kept meanwhile.
        context: Makes what the forward pass runs in, such as mixed precision.
    """
    batch = sample_batch(objective.views, images)
    leaves = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    meter, flops = _pass(objective, batch, accumulates, context)
    if any(map(_recomputes, objective.modules())):
        _, flops = _pass(objective, batch, accumulates, context, recompute=False)
    return Footprint(
        images,
        _patches(leaves, objective),
        sum(leaf.nbytes for leaf in leaves),
        meter.saved,
        meter.peak,
        meter.logits,
        flops,
    )


def sample_batch(views: Views, images: int) -> dict[str, Any]:
    """Return a batch of the shapes the views make, of noise."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)
    return views.collate([views(noise, rng)] * images, rng)


def _pass(
    objective: Objective,
    batch: dict[str, Any],
    accumulates: bool,
    context: Callable[[], AbstractContextManager[Any]],
    recompute: bool = True,
) -> tuple[MemoryMeter, int]:
    """Return what a forward and a backward pass took, and their operations.

    Args:
        objective: What is trained.
        batch: A micro-batch.
        accumulates: See :func:`measure_footprint`.
        context: See :func:`measure_footprint`.
        recompute: Whether blocks are recomputed that the objective recomputes.
    """
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    twin = _twin(objective, fake)
    for part in [] if recompute else filter(_recomputes, twin.modules()):
        vars(part)["activation_checkpointing"] = False
    trained = [p for p in twin.parameters() if p.requires_grad]
    masked = _masked(batch)
    counter = FlopCounterMode(display=False, custom_mapping=_ATTENTION)
    with isolate_rng(), alone(), fake:
        device = next(twin.parameters()).device
        given = tree_map(lambda leaf: _fake(fake, leaf, device), batch)
        meter = MemoryMeter(_prototypes(twin), masked)
        meter.leave_out([*twin.parameters(), *twin.buffers(), *tree_leaves(given)])
        with meter, counter:
            for parameter in trained if accumulates else []:
                parameter.grad = torch.empty_like(parameter)
            with saved_tensors_hooks(meter.save, lambda kept: kept), context():
                terms = twin.weighted_terms(given, 0.5).values()
                loss = torch.stack([weight * term for weight, term in terms]).sum()
            loss.backward()
    return meter, int(counter.get_total_flops())


def _attention_flops(query: Any, key: Any, *args: Any, **kwargs: Any) -> int:
    """Return the operations of attention (B, H, N, d) with keys (B, H, M, d): two products."""
    return int(4 * math.prod(query) * key[2])


def _attention_backward_flops(gradient: Any, query: Any, key: Any, *args: Any, **kw: Any) -> int:
    """Return the operations of its backward pass: five products, one of them over again."""
    return int(10 * math.prod(query) * key[2])


_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""Attention on the CPU, which torch does not count; as it counts the GPU's."""


class _LocalNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of any number of dimensions over this process alone."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        pass


def _twin(objective: Objective, mode: FakeTensorMode) -> Objective:
    """Return a copy in training mode, with gradients, whose weights take no memory."""
    own = [*objective.parameters(), *objective.buffers()]
    twin = copy.deepcopy(objective, {id(tensor): mode.from_tensor(tensor) for tensor in own})
    twin.train()
    for module in twin.modules():
        if isinstance(module, nn.SyncBatchNorm):
            module.__class__ = _LocalNorm  # type: ignore[assignment]
    twin.monitoring = False
    compile_blocks(twin, False)
    return twin


def _recomputes(part: nn.Module) -> bool:
    return bool(vars(part).get("activation_checkpointing"))


def _fake(mode: FakeTensorMode, leaf: Any, device: torch.device) -> Any:
    return mode.from_tensor(leaf).to(device) if isinstance(leaf, Tensor) else leaf


def _prototypes(objective: nn.Module) -> set[tuple[int, int]]:
    layers = [m for m in objective.modules() if isinstance(m, Prototypes)]
    return {(layer.weight_v.shape[0], layer.weight_v.shape[1]) for layer in layers}


def _masked(batch: dict[str, Any]) -> dict[int, int]:
    masks = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, Tensor)]
    return {mask.numel(): int(mask.sum()) for mask in masks if mask.dtype == torch.bool}


def _patches(leaves: list[Tensor], objective: Objective) -> int:
    """Return the patches of all views, counted by their pixels."""
    patch = getattr(objective.backbone, "patch_size", None)
    if patch is None:
        return 0
    pixels = sum(leaf.numel() for leaf in leaves if leaf.is_floating_point() and leaf.ndim >= 4)
    return int(pixels // (objective.backbone.in_chans * patch**2))

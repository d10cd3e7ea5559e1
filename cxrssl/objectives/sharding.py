"""Training with weights, gradients and optimiser state spread over the processes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.constants import default_pg_timeout
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from cxrssl.backbones.block import PackedBlock
from cxrssl.heads import DINOHead, MultiLevelHead, Projector
from cxrssl.objectives.resuming import check_optimizers, check_weights

__all__ = ["FullySharded", "plain_class", "shard", "whole", "zero_of"]

_UNITS = (PackedBlock, DINOHead, MultiLevelHead, Projector)
"""Modules that are gathered one at a time; only ``forward`` and ``select`` of them is called."""


class FullySharded(ModelParallelStrategy):
    """Fully sharded data parallelism (torch's FSDP2) over all processes, for every objective.

    Each process keeps its share of weights, gradients, teacher and optimiser state. A block or a
    head is gathered while it runs; all else is gathered for the length of a forward or backward
    pass. Losses, gradients and weights are those of DDP.

    A checkpoint is the one file that other strategies write and read: a run can go on with another
    strategy or another number of processes. The first process puts it together, and must hold all
    of it in main memory.

    ``fully_sharded`` is its name for Lightning's trainer. Only training is sharded; evaluate the
    checkpoint with another strategy.

    Args:
        half_blocks: Whether transformer blocks are gathered and computed in bfloat16, which halves
            what is sent; weights are kept, and gradients added up, in float32. Between blocks,
            in heads and in losses, the trainer's precision counts.
        reduce_each: Whether gradients are reduced after every accumulated micro-batch. Without it
            they are reduced once a step, which sends less, but each process holds whole gradients
            until then.
        process_group_backend: What the processes talk through; by the device if left out.
        timeout: How long they wait for each other; half an hour by default, as the first process
            alone fits probes, draws figures and writes checkpoints meanwhile.
    """

    def __init__(
        self,
        half_blocks: bool = False,
        reduce_each: bool = False,
        process_group_backend: str | None = None,
        timeout: timedelta | None = default_pg_timeout,
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.half_blocks = half_blocks
        self.reduce_each = reduce_each

    def setup_environment(self) -> None:
        """Start the processes; all of them share one model."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Add up gradients within each process, in a backward pass that is not a step's last."""
        assert isinstance(self.model, FSDPModule)
        self.model.set_requires_gradient_sync(self.reduce_each)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)

    @property
    def synchronises_norms(self) -> bool:
        """Whether batch norms are to see the images of all processes."""
        return self._layer_sync is not None

    def synchronise_norms(self, module: nn.Module) -> None:
        """Let a module's batch norms see the images of all processes, if that is asked for."""
        # The parent, unlike the strategies before it, leaves this to whoever shards the module.
        if self._layer_sync is not None:
            self._layer_sync.apply(module)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole weights on the first process, nothing on the others."""
        assert self.model is not None
        return self._on_first(self.model.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state on the first process, nothing on the others."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        state = optimizer.state_dict()
        # Every process takes part in the gathering of every value.
        values = {number: self._on_first(entry) for number, entry in state["state"].items()}
        return {**state, "state": values} if self.is_global_zero else {}

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint and take this process's share of weights and optimiser state."""
        path = Path(self.broadcast(checkpoint_path))
        checkpoint = self.checkpoint_io.load_checkpoint(path, weights_only=weights_only)
        assert self.model is not None
        check_weights(self.model, plain_class(self.model).__name__, checkpoint, str(path))
        check_optimizers(self.optimizers, checkpoint.get("optimizer_states"), str(path))
        shares = _shares(self.model.state_dict(), checkpoint["state_dict"])
        self.model.load_state_dict(shares)
        for optimizer, state in zip(
            self.optimizers, checkpoint.get("optimizer_states", []), strict=False
        ):
            _load_optimizer(optimizer, state)
        return checkpoint

    def _on_first(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return values whole and on the CPU on the first process, nothing on the others."""
        result = {}
        for name, value in values.items():
            gathered = whole(value)
            if self.is_global_zero:
                result[name] = gathered.cpu() if isinstance(gathered, Tensor) else gathered
        return result


StrategyRegistry.register(
    "fully_sharded", FullySharded, description="Weights and optimiser state over all processes"
)


def shard(module: nn.Module, strategy: FullySharded, methods: Iterable[str]) -> None:
    """Shard a module in place: its blocks and heads one by one, and what is left as a whole.

    All processes start from the weights of the first one. What is sharded already is left alone.

    Args:
        module: Its class becomes a subclass, see :func:`plain_class`.
        strategy: Knows the processes.
        methods: Names of the module's methods in which its weights are needed.
    """
    if isinstance(module, FSDPModule):
        return  # by an earlier fit
    module.to(strategy.root_device)
    for value in module.state_dict().values():
        dist.broadcast(value, 0)
    mesh = strategy.device_mesh["data_parallel"]
    full = MixedPrecisionPolicy()
    half = MixedPrecisionPolicy(torch.bfloat16, torch.float32, torch.float32)
    units = [part for part in module.modules() if isinstance(part, _UNITS)]
    for unit in reversed(units):  # what is inside of another one comes first
        is_block = isinstance(unit, PackedBlock)
        fully_shard(unit, mesh=mesh, mp_policy=half if is_block and strategy.half_blocks else full)
        if is_block:
            register_fsdp_forward_method(unit, "select")
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for name in methods:
        register_fsdp_forward_method(module, name)


def plain_class(module: nn.Module) -> type:
    """Return the class of a module as it was before the module was sharded."""
    return next(c for c in type(module).__mro__ if not issubclass(c, FSDPModule))


def whole(value: Any) -> Any:
    """Return a value, put together from all processes where it is sharded."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def zero_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return 0 as a sum in which parameters take part, each process's share of sharded ones."""
    local = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
    return torch.stack([(p * 0).sum() for p in local]).sum()


def _shares(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return given whole values, sharded like this process's own of the same name."""
    return {name: _share(own.get(name), value) for name, value in given.items()}


def _share(own: Any, value: Any) -> Any:
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or own.shape != value.shape:
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    values = {
        number: {key: _share(parameters[number], value) for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": values})

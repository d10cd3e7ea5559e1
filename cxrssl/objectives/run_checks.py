"""What is refused or warned of before a run, since it would be wrong in silence."""

import socket
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import distributed as dist
from torch import nn

from cxrssl.errors import InputError
from cxrssl.objectives.sharding import FullySharded

__all__ = ["check_batch", "check_start", "check_trainer", "warn_of_local_norms"]


def check_trainer(trainer: Trainer, stage: str, module: nn.Module, *, shardable: bool) -> None:
    """Refuse to shard what cannot be sharded and weights in float16; warn of those in bfloat16.

    Args:
        trainer: What is asked for.
        stage: ``fit``, ``validate``, ``test`` or ``predict``.
        module: What is going to be run.
        shardable: Whether it can be sharded in training.

    Raises:
        InputError: If the trainer wants either.
    """
    strategy, precision = type(trainer.strategy).__name__, str(trainer.precision)
    if isinstance(trainer.strategy, FullySharded):
        _check_sharded(trainer.strategy, precision, stage, module, shardable)
    elif "FSDP" in strategy or "ModelParallel" in strategy or "DeepSpeed" in strategy:
        raise InputError(
            f"{strategy} shards the model in a way that is not supported; use fully_sharded or ddp"
        )
    if stage == "fit" and precision == "16-true":
        raise InputError(
            "weights kept in 16-true cannot follow: their gradients vanish without a scaler, and "
            "late updates are smaller than the precision; use bf16-mixed, 16-mixed or 32-true"
        )
    if stage == "fit" and precision == "bf16-true":
        rank_zero_warn(
            "weights kept in bf16-true miss updates smaller than about 1/500 of a weight, which "
            "late ones are, and the optimiser's averages stall alike: use bf16-mixed unless "
            "memory rules it out. Teachers and losses are kept in float32."
        )


def check_start(trainer: Trainer) -> None:
    """Refuse a checkpoint in shards, and one that not all processes find.

    All processes must call it.

    Args:
        trainer: Knows the checkpoint and the processes.

    Raises:
        InputError: On all processes, if the checkpoint is either.
    """
    path = Path(trainer.ckpt_path) if trainer.ckpt_path else None
    here = socket.gethostname(), str(path) if path is not None and path.exists() else "none"
    found = [here] * trainer.world_size
    if trainer.world_size > 1:
        dist.all_gather_object(found, here)
    if len({start for _, start in found}) > 1:
        seen = ", ".join(f"{start} on {host}" for host, start in dict.fromkeys(found))
        raise InputError(
            f"the processes would start from different checkpoints ({seen}): put "
            "trainer.default_root_dir on a disk that all nodes share, or give a ckpt_path that all "
            "of them can read"
        )
    if path is not None and (path / ".metadata").is_file():
        raise InputError(
            f"{path} is a folder of shards, which only the strategy that wrote it reads: make one "
            f"file of it (python -m lightning.pytorch.utilities.consolidate_checkpoint {path}) and "
            "give that as ckpt_path"
        )


def _check_sharded(
    strategy: FullySharded, precision: str, stage: str, module: nn.Module, shardable: bool
) -> None:
    if not shardable:
        raise InputError(f"{type(module).__name__} cannot be sharded: use ddp")
    if stage != "fit":
        raise InputError(f"only training is sharded: run {stage} with one device or with ddp")
    if precision == "16-mixed":
        raise InputError("the scale of 16-mixed does not know of shards: use bf16-mixed or 32-true")
    if precision == "bf16-true":
        raise InputError(
            "sharded weights are kept in float32, as averages of the teacher are: use bf16-mixed, "
            "or half_blocks of FullySharded"
        )
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if norms and not strategy.synchronises_norms:
        raise InputError(
            f"the statistics of {len(norms)} batch norms would differ between the processes of a "
            "sharded run: set trainer.sync_batchnorm to true"
        )


def check_batch(batch: int, fewest: int, name: str) -> None:
    """Refuse a batch over all processes that is too small for what compares images.

    Args:
        batch: Its images, 0 where they are not known.
        fewest: Images that are needed.
        name: What needs them.

    Raises:
        InputError: If there are fewer.
    """
    if 0 < batch < fewest:
        raise InputError(
            f"{name} compares images and needs at least {fewest} in a batch over all processes, "
            f"got {batch}: raise data.batch_size"
        )


def warn_of_local_norms(module: nn.Module, processes: int) -> None:
    """Warn of batch norms that see only the images of their own process."""
    local = [m for m in module.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if processes > 1 and any(m.training for m in local):
        rank_zero_warn(
            f"{len(local)} batch norms see only the images of their own process: set "
            "trainer.sync_batchnorm to true, or the result depends on the number of processes"
        )

"""Running a function in two processes that talk through gloo."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp


def run_two(function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``function(rank, *arguments)`` returns on ranks 0 and 1."""
    mp.spawn(_worker, args=(function, str(folder), arguments), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(2)]


def _worker(rank: int, function: Callable[..., Any], folder: str, arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    try:
        torch.save(function(rank, *arguments), Path(folder) / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()

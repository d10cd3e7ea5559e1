"""How far two processes, with copies of the model or with its shards, are from one.

    PYTHONPATH=. python benchmarks/equality.py [--steps 5] [--single] [--only DINOv2]

The small objectives that the tests train, in double precision or (with `--single`) in single, on
the CPU: one process on the whole batches, two on halves of them. Prints, for each strategy, the
largest difference of losses and gradients over the steps and of the weights after them, relative to
the largest value of the same tensor. Batch norms see the images of both processes.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.distributed import run_two
from tests.objectives.sharded_training import fit, fit_share
from tests.objectives.test_sharding import CASES, STRATEGIES, made

BATCH = 8
FLOOR = 1e-3
"""Tensors whose values are all smaller than this share of the largest are taken relative to it."""


def train(rank: int, names: list[str], steps: int, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Train objectives with every strategy on this process's share."""
    silence()
    return {
        name: {
            s: fit_share(rank, *made(CASES[name], steps, BATCH, dtype), strategy=s)
            for s in STRATEGIES
        }
        for name in names
    }


def silence() -> None:
    """Leave nothing but the table."""
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(1)


def difference(found: Mapping[str, Tensor], exact: Mapping[str, Tensor]) -> float:
    """Return the largest relative difference of any value."""
    values = {name: value for name, value in exact.items() if value.is_floating_point()}
    largest = {name: value.abs().max().item() for name, value in values.items()}
    floor = FLOOR * max(largest.values())
    return max(
        (found[name] - value).abs().max().item() / max(largest[name], floor)
        for name, value in values.items()
    )


def cells(result: dict[str, Any], one: dict[str, Any]) -> list[str]:
    """Return the differences of losses, gradients and weights."""
    pairs = [({"": result["losses"]}, {"": one["losses"]})]
    pairs += [(result[kind], one[kind]) for kind in ("gradients", "state")]
    return [f"{difference(found, exact):.0e}" for found, exact in pairs]


def main() -> None:
    """Train everything in one process and in two, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--single", action="store_true", help="single precision")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    silence()
    dtype = torch.float32 if options.single else torch.float64
    kinds = ("losses", "gradients", "weights")
    titles = [f"{strategy}: {kind}" for strategy in STRATEGIES for kind in kinds]
    with tempfile.TemporaryDirectory() as folder:
        first, _ = run_two(train, Path(folder), options.only, options.steps, dtype)
    print(f"| objective | {' | '.join(titles)} |")
    print("|---" * (1 + len(titles)) + "|")
    for name in options.only:
        one = fit(*made(CASES[name], options.steps, BATCH, dtype))
        row = [cell for strategy in STRATEGIES for cell in cells(first[name][strategy], one)]
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()

"""Which process this is, among those that were started together."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from cxrssl.errors import InputError

__all__ = ["Share", "this_share"]

# Number of this process, of all, and of this one on its machine, as torchrun and srun name them.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
)


class Share(NamedTuple):
    """A process among others that do not speak to each other.

    Attributes:
        rank: Its number.
        world_size: How many there are.
        local_rank: Its number on its machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0


def this_share(environment: Mapping[str, str] | None = None) -> Share:
    """Return which process this is, by the variables of torchrun or srun; the only one without.

    Args:
        environment: Variables; those of the process if None.

    Raises:
        InputError: If they contradict each other.
    """
    variables = os.environ if environment is None else environment
    for rank, world_size, local_rank in _LAUNCHERS:
        if rank in variables and world_size in variables:
            try:
                share = Share(
                    int(variables[rank]),
                    int(variables[world_size]),
                    int(variables.get(local_rank, 0)),
                )
            except ValueError as error:
                raise InputError(f"{rank} and {world_size} must be whole numbers") from error
            if not 0 <= share.rank < share.world_size:
                raise InputError(
                    f"{rank} is {share.rank} and {world_size} is {share.world_size}: start one "
                    "process for each number below it"
                )
            return share
    return Share()

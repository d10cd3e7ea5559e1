"""Objectives over the batch, and several at once, in two processes, in double precision.

Batch norms over four images would blow up the rounding of single precision.
"""

import pytest
import torch
from torch.utils._pytree import tree_map

from tests.distributed import run_two
from tests.objectives.siamese_training import (
    batches,
    small_convnet,
    small_dinov2,
    small_joint,
    small_lejepa,
    small_mlvicx,
    small_vicreg,
    small_world,
)
from tests.objectives.two_processes import assert_equal_to_one, train_share

STEPS, LR = 3, 0.02
SIGREG = {"sigreg": 0.1}
CASES = {
    "VICReg": small_vicreg,
    "VICReg, ConvNet": lambda: small_vicreg(small_convnet()),
    "MLVICX": small_mlvicx,
    "MLVICX, ConvNet": lambda: small_mlvicx(small_convnet(), fusion_size=16),
    "LeJEPA": small_lejepa,
    "DINOv2 with SIGReg": lambda: small_dinov2(weights=SIGREG),
    "WorldModel with SIGReg": lambda: small_world(weights=SIGREG),
    "Joint": lambda: small_joint("dinov2", "mlvicx", "world"),
}


def train_all(rank):
    return {name: train_share(rank, *made(name), LR) for name in CASES}


def made(name):
    objective = CASES[name]().double()
    return objective, tree_map(in_double, batches(objective.views, STEPS))


def in_double(value):
    return value.double() if torch.is_floating_point(value) else value


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_two(train_all, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_give_losses_gradients_and_weights_of_one(results, name):
    assert_equal_to_one([each[name] for each in results], *made(name), LR)

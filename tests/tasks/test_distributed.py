"""Two processes on halves of a batch find the gradients of one on the whole."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from tests.distributed import run_two
from tests.objectives.two_processes import Step
from tests.tasks.small import (
    labelled_batches,
    masked_batches,
    small_classification,
    small_segmentation,
)

TASKS = {"classification": small_classification, "segmentation": small_segmentation}


def whole_batch():
    """Return a batch of which the two halves know unequally much."""
    [batch], [masked] = labelled_batches(1), masked_batches(1, batch_size=6)
    batch["labels"][:3] = batch["labels"][:3].where(torch.arange(2) == 0, torch.nan)
    return {**batch, "masks": masked["masks"]}


def share(rank, states, batch):
    half = {name: value.chunk(2)[rank] for name, value in batch.items()}
    found = {}
    for name, make in TASKS.items():
        task = make(frozen=False)
        task.load_state_dict(states[name])
        module = DistributedDataParallel(Step(task.eval()), find_unused_parameters=True)
        loss = module(half)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in task.named_parameters() if p.grad is not None}
        task._outputs.add(half, values=half["image_number"].float())
        found[name] = loss.detach(), gradients, task._outputs.take()["image_number"].tolist()
    return found


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    batch = whole_batch()
    tasks = {name: make(frozen=False).eval() for name, make in TASKS.items()}
    states = {name: task.state_dict() for name, task in tasks.items()}
    first, second = run_two(share, tmp_path, states, batch)
    for name, task in tasks.items():
        loss = Step(task)(batch)
        loss.backward()
        assert_close((first[name][0] + second[name][0]) / 2, loss.detach())
        for key, parameter in task.named_parameters():
            if parameter.grad is not None:
                found = first[name][1][key]
                assert_close(found, parameter.grad, atol=1e-6, rtol=1e-4)
                assert torch.equal(found, second[name][1][key])
        assert first[name][2] == second[name][2] == list(range(6))

"""Training of an objective by two processes on halves of each batch, against one on the whole."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close


class Step(nn.Module):
    """The weighted loss of a batch as a module, so that DDP can wrap it."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, batch):
        terms = self.objective.loss_terms(batch, 0.5)
        return torch.stack([self.objective.weight(n) * t for n, t in terms.items()]).sum()


def train(step, module, batches, lr):
    """Train for a few steps; return losses, the first gradients, and the final state."""
    optimizer = torch.optim.SGD([p for p in step.parameters() if p.requires_grad], lr=lr)
    losses, gradients = [], None
    for batch in batches:
        optimizer.zero_grad()
        loss = module(batch)
        loss.backward()
        if gradients is None:
            gradients = {n: p.grad.clone() for n, p in step.named_parameters() if p.requires_grad}
        optimizer.step()
        step.objective.update_teacher(0.5)
        losses.append(loss.detach())
    return torch.stack(losses), gradients, step.state_dict()


def train_share(rank, objective, batches, lr):
    """Train on this rank's half of each batch."""
    step = Step(objective)
    shares = [{name: value.chunk(2)[rank] for name, value in batch.items()} for batch in batches]
    return train(step, DistributedDataParallel(step), shares, lr)


def assert_equal_to_one(shares, objective, batches, lr):
    """Compare what both ranks ended with, with a training of one process."""
    first, second = shares
    step = Step(objective)
    losses, gradients, state = train(step, step, batches, lr)
    assert_close((first[0] + second[0]) / 2, losses, atol=1e-5, rtol=1e-5)
    assert losses[0] != pytest.approx(losses[-1].item())
    for name, gradient in gradients.items():
        assert_close(first[1][name], gradient, atol=1e-5, rtol=1e-4)
    for name, value in state.items():
        assert_close(first[2][name], value, atol=1e-5, rtol=1e-4)
        assert torch.equal(first[2][name], second[2][name])

"""Training of an objective by two processes on halves of each batch, against one on the whole."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from cxrssl.losses.distributed import sum_with_gradient, world_size


class GlobalBatchNorm(nn.Module):
    """What torch's SyncBatchNorm does, which works on GPUs only."""

    def forward(self, x):
        over = [0, *range(2, x.ndim)]
        n = world_size() * x.numel() / x.shape[1]
        shape = (1, -1, *[1] * (x.ndim - 2))
        mean = sum_with_gradient(x.sum(over)) / n
        variance = sum_with_gradient((x - mean.view(shape)).square().sum(over)) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        normed = (x - mean.view(shape)) * (variance.view(shape) + self.eps).rsqrt()
        return normed * self.weight.view(shape) + self.bias.view(shape)


class GlobalBatchNorm1d(GlobalBatchNorm, nn.BatchNorm1d):
    pass


class GlobalBatchNorm2d(GlobalBatchNorm, nn.BatchNorm2d):
    pass


def synchronise(module):
    """Turn batch norms into ones that see the batches of all processes, in place."""
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = GlobalBatchNorm1d
        elif type(part) is nn.BatchNorm2d:
            part.__class__ = GlobalBatchNorm2d
    return module


class Step(nn.Module):
    """The weighted loss of a batch as a module, so that DDP can wrap it."""

    def __init__(self, objective):
        super().__init__()
        self.objective = objective

    def forward(self, batch):
        terms = self.objective.weighted_terms(batch, 0.5)
        return torch.stack([weight * term for weight, term in terms.values()]).sum()


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
    step = Step(synchronise(objective))
    shares = [tree_map(lambda value: value.chunk(2)[rank], batch) for batch in batches]
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

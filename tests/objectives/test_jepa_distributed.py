import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from tests.distributed import run_two
from tests.objectives.jepa_training import ijepa_batches, small_ijepa, small_world, world_batches

IMAGES, STEPS = 4, 3
CASES = {
    "world": (small_world, world_batches, {"weights": {"variance": 0.1}}),
    "separate": (small_world, world_batches, {"domain": "separate", "elsewhere": "all"}),
    "local": (small_world, world_batches, {"domain": "off", "weights": {"global": 0.0}}),
    "ijepa": (small_ijepa, ijepa_batches, {}),
}


class Step(nn.Module):
    """The weighted loss of a batch as a module, so that DDP can wrap it."""

    def __init__(self, make, options):
        super().__init__()
        self.objective = make(**options)

    def forward(self, batch):
        terms = self.objective.loss_terms(batch, 0.5)
        return torch.stack([self.objective.weight(n) * t for n, t in terms.items()]).sum()


def train(step, module, batches):
    """Train for a few steps; return losses, the first gradients, and the final state."""
    optimizer = torch.optim.SGD([p for p in step.parameters() if p.requires_grad], lr=0.1)
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


def train_share(rank, names):
    """Train all cases on this rank's half of each batch."""
    results = {}
    for name in names:
        make, batches, options = CASES[name]
        step = Step(make, options)
        half = slice(rank * IMAGES // 2, (rank + 1) * IMAGES // 2)
        mine = [{key: value[half] for key, value in batch.items()} for batch in batches(STEPS)]
        results[name] = train(step, DistributedDataParallel(step), mine)
    return results


def test_two_processes_give_losses_gradients_and_weights_of_one(tmp_path):
    first, second = run_two(train_share, tmp_path, list(CASES))
    for name, (make, batches, options) in CASES.items():
        step = Step(make, options)
        losses, gradients, state = train(step, step, batches(STEPS))
        assert_close((first[name][0] + second[name][0]) / 2, losses, atol=1e-5, rtol=1e-5)
        assert losses[0] != pytest.approx(losses[-1].item())
        for key, gradient in gradients.items():
            assert_close(first[name][1][key], gradient, atol=1e-5, rtol=1e-4)
        for key, value in state.items():
            assert_close(first[name][2][key], value, atol=1e-5, rtol=1e-4)
            assert torch.equal(first[name][2][key], second[name][2][key])

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from cxrssl.backbones import ViT
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2
from tests.distributed import run_two

IMAGES, STEPS = 4, 3


def small_head(dim):
    return DINOHead(dim, prototypes=24, hidden=16, bottleneck=8)


class Step(nn.Module):
    """The weighted loss of a batch as a module, so that DDP can wrap it."""

    def __init__(self, centering, separate):
        super().__init__()
        torch.manual_seed(0)
        backbone = ViT("vit_tiny", img_size=32, width=32, depth=2, heads=2, layer_scale=1.0)
        self.objective = DINOv2(
            backbone,
            dino_head=small_head,
            ibot_head=small_head if separate else None,
            centering=centering,
            center_reduction="global",
            koleo_scope="global",
        )

    def forward(self, batch):
        terms = self.objective.loss_terms(batch, 0.5)
        return torch.stack([self.objective.weight(n) * t for n, t in terms.items()]).sum()


def batches():
    """Return batches of four images; the first two mask fewer patches than the last two."""
    generator = torch.Generator().manual_seed(1)
    result = []
    for _ in range(STEPS):
        masks = torch.rand(IMAGES, 2, 4, generator=generator)
        limits = torch.tensor([0.0, 0.3, 0.6, 0.9]).view(IMAGES, 1, 1)
        result.append(
            {
                "global_crops": torch.randn(IMAGES, 2, 1, 32, 32, generator=generator),
                "local_crops": torch.randn(IMAGES, 3, 1, 16, 16, generator=generator),
                "masks": masks < limits,
            }
        )
    return result


def train(step, module, batches):
    """Train for a few steps; return losses, the first gradients, and the final state."""
    optimizer = torch.optim.SGD([p for p in step.parameters() if p.requires_grad], lr=0.5)
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


def train_share(rank, cases):
    """Train all cases on this rank's half of each batch."""
    results = {}
    for case in cases:
        step = Step(*case)
        half = slice(rank * IMAGES // 2, (rank + 1) * IMAGES // 2)
        mine = [{name: value[half] for name, value in batch.items()} for batch in batches()]
        results[case] = train(step, DistributedDataParallel(step), mine)
    return results


def test_two_processes_give_losses_gradients_and_weights_of_one(tmp_path):
    cases = [(c, s) for c in ("softmax", "sinkhorn") for s in (False, True)]
    first, second = run_two(train_share, tmp_path, cases)
    for case in cases:
        step = Step(*case)
        losses, gradients, state = train(step, step, batches())
        assert_close((first[case][0] + second[case][0]) / 2, losses, atol=1e-5, rtol=1e-5)
        assert losses[0] != pytest.approx(losses[-1].item())
        for name, gradient in gradients.items():
            assert_close(first[case][1][name], gradient, atol=1e-5, rtol=1e-4)
        for name, value in state.items():
            assert_close(first[case][2][name], value, atol=1e-5, rtol=1e-4)
            assert torch.equal(first[case][2][name], second[case][2][name])

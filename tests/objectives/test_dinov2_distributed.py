import torch

from cxrssl.backbones import ViT
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2
from tests.distributed import run_two
from tests.objectives.two_processes import assert_equal_to_one, train_share

IMAGES, STEPS, LR = 4, 3, 0.5
CASES = [(c, s) for c in ("softmax", "sinkhorn") for s in (False, True)]


def small_head(dim):
    return DINOHead(dim, prototypes=24, hidden=16, bottleneck=8)


def make(centering, separate):
    torch.manual_seed(0)
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=2, heads=2, layer_scale=1.0)
    return DINOv2(
        backbone,
        dino_head=small_head,
        ibot_head=small_head if separate else None,
        centering=centering,
        center_reduction="global",
        koleo_scope="global",
    )


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


def train_cases(rank):
    return {case: train_share(rank, make(*case), batches(), LR) for case in CASES}


def test_two_processes_give_losses_gradients_and_weights_of_one(tmp_path):
    results = run_two(train_cases, tmp_path)
    for case in CASES:
        shares = [result[case] for result in results]
        assert_equal_to_one(shares, make(*case), batches(), LR)

"""Time of one optimiser step of an objective over the bare encoder passes of the same tokens.

    python benchmarks/step_time.py [--backbone vit_small --size 224 --batch 8 --rounds 10]

The bare passes are forward and backward of the student's tokens and forward of the teacher's, with
no head, loss, optimiser, or moving average. Both are measured in turns in one process, so the ratio
can be trusted where the times cannot. Heads have the published shape scaled to the encoder's width.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from cxrssl.backbones import ViT
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2, Recipe
from cxrssl.objectives.recipe import parameter_groups

PUBLISHED_WIDTH = 1024
"""Width of the ViT-L whose heads are scaled down."""


def published_head(dim: int) -> DINOHead:
    """Return DINOv2's ViT-L head with every width scaled by dim / 1024."""
    scale = dim / PUBLISHED_WIDTH
    return DINOHead(
        dim,
        prototypes=round(65536 * scale),
        hidden=round(2048 * scale),
        bottleneck=round(256 * scale),
    )


def fake_batch(batch: int, size: int, small: int, n_local: int, patch: int) -> dict[str, Tensor]:
    """Return crops of noise with half of the global crops masked at 30 percent."""
    masks = torch.rand(batch, 2, (size // patch) ** 2) < 0.3
    masks[::2] = False
    return {
        "global_crops": torch.randn(batch, 2, 1, size, size),
        "local_crops": torch.randn(batch, n_local, 1, small, small),
        "masks": masks,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="vit_tiny")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--local-size", type=int, default=48)
    parser.add_argument("--n-local", type=int, default=4)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--centering", default="sinkhorn", choices=["sinkhorn", "softmax"])
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    backbone = ViT(options.backbone, img_size=options.size, patch_size=options.patch)
    objective = DINOv2(
        backbone,
        dino_head=published_head,
        ibot_head=published_head,
        centering=options.centering,
    ).to(device)
    objective.train()
    data = fake_batch(
        options.batch, options.size, options.local_size, options.n_local, options.patch
    )
    batch = {name: value.to(device) for name, value in data.items()}
    groups = parameter_groups(objective.named_parameters(), len(backbone.vit.blocks), Recipe())
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
    crops = batch["global_crops"].transpose(0, 1).flatten(0, 1)
    small = batch["local_crops"].transpose(0, 1).flatten(0, 1)

    def bare() -> None:
        with torch.no_grad():
            objective.teacher.module["backbone"](crops)
        tokens = backbone.forward_many([crops, small])
        # The gradient enters at the tokens that have one in training.
        sum(t.image.sum() for t in tokens).backward()
        backbone.zero_grad()

    def step() -> None:
        terms = objective.loss_terms(batch, 0.5)
        sum(objective.weight(name) * term for name, term in terms.items()).backward()
        objective.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        objective.update_teacher(0.5)

    times = measure({"bare passes": bare, "DINOv2 step": step}, options.rounds, device)
    reference = statistics.median(times["bare passes"])
    print(f"{options.backbone}/{options.patch}, {options.size} px, batch {options.batch}, {device}")
    print("| what | ms, median | ratio |\n|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {1000 * median:.0f} | {median / reference:.2f} |")


def measure(
    functions: dict[str, Callable[[], None]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Return the times in seconds of functions that take turns, after one round of warming up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    main()

"""Time of one optimiser step of an objective over the bare encoder passes of the same tokens.

    python benchmarks/step_time.py                 # the table of objectives and backbones
    python benchmarks/step_time.py dinov2 [--backbone vit_small --size 128 --local-size 64]
    python benchmarks/step_time.py world [--backbone vit_small --size 224 --batch 8]

The bare passes are forward and backward of the student's tokens and forward of the teacher's, with
no head, loss, optimiser, or moving average. Both are measured in turns in one process, so the ratio
can be trusted where the times cannot. Heads have the published shape scaled to the encoder's width.

The ratio of products counts multiplications in matrix products and convolutions, without the
optimiser: the same on every machine, it is what the method itself asks for. On Linux the process
keeps memory that was freed, as PyTorch does on a GPU: handing it back to the system and taking it
again costs the larger of the two, the step, up to some 6 percent.

The peak of memory is what training adds to the process (on a GPU: what is allocated). The wait for
data is its share of the time in a run of ``cxrssl``'s own data module on image files of 512 px with
one worker process.
"""

import argparse
import contextlib
import ctypes
import io
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning import Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cxrssl.backbones import Backbone, ConvNet, ViT
from cxrssl.callbacks import ProgressBar
from cxrssl.data import CXRDataModule
from cxrssl.data.phantom import Phantom
from cxrssl.data.phantom.files import write_png
from cxrssl.heads import DINOHead, MultiLevelHead, Predictor, Projector
from cxrssl.objectives import (
    IJEPA,
    MLVICX,
    DINOv2,
    LeJEPA,
    Objective,
    Recipe,
    VICReg,
    WorldModel,
)
from cxrssl.objectives.compiling import compile_blocks
from cxrssl.objectives.recipe import build_optimizer
from cxrssl.views import MultiBlockMasking

PUBLISHED_WIDTH = {
    "dinov2": 1024,
    "world": 768,
    "ijepa": 1280,
    "mlvicx": 512,
    "vicreg": 2048,
    "lejepa": 768,
}
"""Width of the encoder whose heads are scaled down."""
PREDICTOR_DEPTH = {"world": 6, "ijepa": 12}


class Case(NamedTuple):
    """An objective, a batch for it, and the bare passes of the same tokens."""

    objective: Objective
    batch: dict[str, Tensor]
    bare: Callable[[], Tensor]


def published_head(dim: int) -> DINOHead:
    """Return DINOv2's ViT-L head with every width scaled by dim / 1024."""
    scale = dim / PUBLISHED_WIDTH["dinov2"]
    return DINOHead(
        dim,
        prototypes=round(65536 * scale),
        hidden=round(2048 * scale),
        bottleneck=round(256 * scale),
    )


def published_predictor(method: str, dim: int, actions: int) -> Predictor:
    """Return a method's predictor, 384 wide, scaled to an encoder, with heads 32 wide or near."""
    width = round(384 * dim / PUBLISHED_WIDTH[method] / 32) * 32
    return Predictor(
        dim, actions, width=width, depth=PREDICTOR_DEPTH[method], heads=max(width // 32, 1)
    )


def dinov2(options: argparse.Namespace, device: str) -> Case:
    """Return DINOv2 on noise, half of the global crops masked at 30 percent."""
    backbone = plain_vit(options)
    objective = DINOv2(
        backbone,
        dino_head=published_head,
        ibot_head=published_head,
        centering=options.centering,
    ).to(device)
    n, size, small = options.batch, options.size, options.local_size
    masks = torch.rand(n, 2, (size // options.patch) ** 2) < 0.3
    masks[::2] = False
    batch = {
        "global_crops": torch.randn(n, 2, 1, size, size),
        "local_crops": torch.randn(n, options.n_local, 1, small, small),
        "masks": masks,
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    crops = batch["global_crops"].transpose(0, 1).flatten(0, 1)
    local = batch["local_crops"].transpose(0, 1).flatten(0, 1)

    def bare() -> Tensor:
        with torch.no_grad():
            objective.teacher.module["backbone"](crops)
        tokens = backbone.forward_many([crops, local])
        # The gradient enters at the tokens that have one in training.
        return torch.stack([t.image.sum() for t in tokens]).sum()

    return Case(objective, batch, bare)


def world(options: argparse.Namespace, device: str) -> Case:
    """Return the world model on noise, with masks as its views draw them."""
    backbone = _jepa_backbone(options)
    objective = WorldModel(backbone, predictor=partial(published_predictor, "world")).to(device)
    n, size = options.batch, options.size
    context, target = (each[:n] for each in usual_masks(objective.views.masking))
    batch = {
        "context": torch.randn(n, 2, 1, size, size),
        "target": torch.randn(n, 2, 1, size, size),
        "action": torch.rand(n, 2, 5),
        "offset": torch.rand(n, 2, 4),
        "context_index": torch.from_numpy(context).expand(-1, 2, -1),
        "target_index": torch.from_numpy(target).expand(-1, 2, -1),
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    seen, wanted, kept = (
        batch[name].transpose(0, 1).flatten(0, 1) for name in ("context", "target", "context_index")
    )
    return Case(objective, batch, _bare_jepa(objective, seen, wanted, kept))


def ijepa(options: argparse.Namespace, device: str) -> Case:
    """Return I-JEPA on noise, with masks as its views draw them."""
    backbone = _jepa_backbone(options)
    objective = IJEPA(backbone, predictor=partial(published_predictor, "ijepa")).to(device)
    n, size = options.batch, options.size
    context, target = (each[:n] for each in usual_masks(objective.views.masking))
    batch = {
        "image": torch.randn(n, 1, size, size),
        "context_index": torch.from_numpy(context),
        "target_index": torch.from_numpy(target),
    }
    batch = {name: value.to(device) for name, value in batch.items()}
    image = batch["image"]
    return Case(objective, batch, _bare_jepa(objective, image, image, batch["context_index"][:, 0]))


def published_projector(
    method: str, widths: tuple[int, ...], final_bn: bool, dim: int
) -> Projector:
    """Return a method's projector with every width scaled to an encoder."""
    return Projector(dim, _scaled(method, widths, dim), final_bn=final_bn)


def published_level_head(dims: Sequence[int], size: int | None) -> MultiLevelHead:
    """Return MLVICX's local head with every width scaled to an encoder."""
    channels, *widths = _scaled("mlvicx", (512, 4096, 4096, 4096), dims[-1])
    return MultiLevelHead(dims, size, channels=channels, widths=widths, final_bn=True)


def _scaled(method: str, widths: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return tuple(max(round(width * dim / PUBLISHED_WIDTH[method]), 1) for width in widths)


def mlvicx(options: argparse.Namespace, device: str) -> Case:
    """Return MLVICX on noise."""
    objective = MLVICX(
        _any_backbone(options),
        global_head=partial(published_projector, "mlvicx", (4096, 4096, 4096), True),
        local_head=published_level_head,
    )
    return _pair(objective.to(device), options, device)


def vicreg(options: argparse.Namespace, device: str) -> Case:
    """Return VICReg on noise."""
    expander = partial(published_projector, "vicreg", (8192, 8192, 8192), False)
    objective = VICReg(_any_backbone(options), expander=expander)
    return _pair(objective.to(device), options, device)


def lejepa(options: argparse.Namespace, device: str) -> Case:
    """Return LeJEPA on noise."""
    projector = partial(published_projector, "lejepa", (2048, 2048, 16), False)
    objective = LeJEPA(_any_backbone(options), projector=projector).to(device)
    n, size, small = options.batch, options.size, options.local_size
    crops = [torch.randn(n, 2, 1, size, size), torch.randn(n, options.n_local, 1, small, small)]
    groups = [crop.transpose(0, 1).flatten(0, 1).to(device) for crop in crops]
    batch = {"global_crops": crops[0].to(device), "local_crops": crops[1].to(device)}

    def bare() -> Tensor:
        tokens = objective.backbone.forward_many(groups)
        return torch.stack([t.image.sum() for t in tokens]).sum()

    return Case(objective, batch, bare)


def plain_vit(options: argparse.Namespace) -> ViT:
    """Return a ViT with class token and learned positions."""
    return ViT(
        options.backbone, img_size=options.size, patch_size=options.patch, packed=options.packed
    )


def _any_backbone(options: argparse.Namespace) -> Backbone:
    if options.backbone.startswith("vit"):
        return plain_vit(options)
    return ConvNet(options.backbone, img_size=options.size)


def _pair(objective: MLVICX | VICReg, options: argparse.Namespace, device: str) -> Case:
    views = torch.randn(options.batch, 2, 1, options.size, options.size, device=device)

    def bare() -> Tensor:
        sums = [objective.backbone(view).patches.sum() for view in views.unbind(1)]
        return torch.stack(sums).sum()

    return Case(objective, {"views": views}, bare)


def usual_masks(masking: MultiBlockMasking) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the masks of a batch of 128 images, as published, whose lengths are nearest the mean.

    Lengths differ much between batches, and small batches keep more patches.
    """
    drawn = [masking.collate_masks(128, np.random.default_rng(seed)) for seed in range(100)]
    lengths = np.array([[each.shape[-1] for each in pair] for pair in drawn])
    return drawn[int(np.abs(lengths - lengths.mean(0)).sum(1).argmin())]


def _jepa_backbone(options: argparse.Namespace) -> ViT:
    return ViT(
        options.backbone,
        img_size=options.size,
        patch_size=options.patch,
        class_token=False,
        position="sincos",
    )


def _bare_jepa(
    objective: WorldModel | IJEPA, seen: Tensor, wanted: Tensor, kept: Tensor
) -> Callable[[], Tensor]:
    def bare() -> Tensor:
        with torch.no_grad():
            objective.encoder(wanted)
        return objective.backbone(seen, keep=kept).patches.sum()

    return bare


CASES = {
    "dinov2": dinov2,
    "world": world,
    "ijepa": ijepa,
    "mlvicx": mlvicx,
    "vicreg": vicreg,
    "lejepa": lejepa,
}


HEADER = (
    "objective",
    "backbone, size, batch",
    "bare passes",
    "whole step",
    "ratio",
    "more: passes, optimiser, average",
    "ratio of products",
    "peak memory",
    "wait for data",
)
ROWS = (
    "dinov2",
    "dinov2 --centering softmax",
    "dinov2 --backbone vit_small --size 128 --local-size 64 --batch 8",
    "world --backbone vit_base --size 224 --batch 16",
    "world --backbone vit_small --size 224 --batch 8",
    "ijepa --backbone vit_small --size 224 --batch 8",
    "mlvicx --backbone vit_small --size 224 --batch 24",
    "mlvicx --backbone resnet18 --size 224 --batch 64",
    "vicreg --backbone vit_small --size 224 --batch 8",
    "lejepa",
)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objective", nargs="?", choices=list(CASES))
    parser.add_argument("--backbone", default="vit_tiny")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--local-size", type=int, default=48)
    parser.add_argument("--n-local", type=int, default=4)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--centering", default="sinkhorn", choices=["sinkhorn", "softmax"])
    parser.add_argument("--compile", action="store_true", help="compile the transformer blocks")
    parser.add_argument(
        "--packed", action=argparse.BooleanOptionalAction, help="crops of all sizes in one pass"
    )
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    parser.add_argument("--no-data", action="store_true", help="leave out the wait for data")
    options = parser.parse_args()
    if options.objective is not None:
        print(f"| {' | '.join(row_of(options))} |")
        return
    print("| " + " | ".join(HEADER) + " |\n" + "|---" * len(HEADER) + "|")
    for row in ROWS:  # a process each, so that no one's peak is another's
        command = [sys.executable, __file__, *row.split(), "--rounds", str(options.rounds)]
        subprocess.run(command, check=True)


def row_of(options: argparse.Namespace) -> list[str]:
    """Return the measurements of one objective, in the order of the header."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    keep_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = peak(device)
    objective, batch, bare = CASES[options.objective](options, device)
    objective.train()
    if options.compile:
        compile_blocks(objective)
    optimizer = build_optimizer(
        objective.named_parameters(), objective.backbone, Recipe(), 1e-4, fused=True
    )
    half = options.precision == "bf16-mixed"
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=half)

    def bare_passes() -> None:
        with autocast():
            result = bare()
        result.backward()
        objective.backbone.zero_grad()

    def forward_and_backward() -> None:
        with autocast():
            terms = objective.loss_terms(batch, 0.5)
            total = sum(objective.weight(name) * term for name, term in terms.items())
        total.backward()

    def optimise() -> None:
        objective.configure_gradient_clipping(optimizer)
        optimizer.step()
        optimizer.zero_grad()

    parts = {
        "bare": bare_passes,
        "passes": forward_and_backward,
        "optimiser": optimise,
        "average": lambda: objective.update_teacher(0.5),
    }
    times = measure(parts, options.rounds, device)
    held = peak(device) - before
    steps = [sum(each) for each in zip(*(times[name] for name in list(parts)[1:]), strict=True)]
    ratio = statistics.median(s / b for s, b in zip(steps, times["bare"], strict=True))
    bare_time = statistics.median(times["bare"])
    shares = {
        "passes": statistics.median(times["passes"]) / bare_time - 1,
        "optimiser": statistics.median(times["optimiser"]) / bare_time,
        "average": statistics.median(times["average"]) / bare_time,
    }
    name = f"{type(objective).__name__}{', softmax' if options.centering == 'softmax' else ''}"
    return [
        name,
        f"{options.backbone}, {options.size} px, batch {options.batch}",
        f"{1000 * bare_time:.0f} ms",
        f"{1000 * statistics.median(steps):.0f} ms",
        f"{ratio:.2f}",
        ", ".join(f"{share:.2f}" for share in shares.values()),
        # Compiled code is not counted.
        "-" if options.compile else f"{products(forward_and_backward) / products(bare_passes):.2f}",
        f"{held / 2**30:.2f} GiB",
        "-" if options.no_data else f"{data_wait(objective, options):.0%}",
    ]


def keep_memory() -> None:
    """Let the C library keep what is freed, where it is glibc."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4  # numbers of glibc's malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


def products(function: Callable[[], None]) -> int:
    """Return the operations in matrix products and convolutions of a function."""
    # Fused attention is not counted on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def peak(device: str) -> float:
    """Return the largest amount of memory that this process has held, in bytes."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def data_wait(objective: Objective, options: argparse.Namespace) -> float:
    """Return the share of the time that a run waits for data, read and made by one worker."""
    objective.backbone.train()
    bar = ProgressBar()
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), options.batch * (options.rounds + 1))
        data = CXRDataModule(
            root=folder,
            views=objective.views,
            batch_size=options.batch,
            num_workers=1,
            split=(1.0, 0.0, 0.0),
        )
        trainer = Trainer(
            max_epochs=1,
            precision=options.precision,
            callbacks=[bar],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            use_distributed_sampler=False,
        )
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            trainer.fit(objective, data)
    return bar.data_wait


def write_images(folder: Path, number: int) -> None:
    """Write files of generated radiographs, in turns the same 16."""
    phantom = Phantom(512)
    for i in range(number):
        path = folder / f"{i}.png"
        if i < 16:
            write_png(phantom, i, path)
        else:
            os.link(folder / f"{i % 16}.png", path)


def measure(
    functions: dict[str, Callable[[], None]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Return the times in seconds of functions that take turns, after one round of warming up.

    On a CPU the processor's time is counted, so that other programs do not.
    """
    clock = time.perf_counter if device == "cuda" else time.process_time
    times: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - start)
    return times


if __name__ == "__main__":
    main()

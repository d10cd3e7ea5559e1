"""How far outputs of encoders are from the source library's, and whether round trips are exact.

    python benchmarks/interchange.py [--name vit_small] [--native 112]

Small random models are saved in the official layouts and loaded, and our own are exported and
loaded by timm and transformers. Prints, for each format, direction and image size, the largest
difference of any token, and of any weight after a round trip. Rows called control resample
positions in another mode than the library does: they show what a difference looks like.
"""

import argparse
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn
from transformers import (
    AutoModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from cxrssl.backbones import ViT, load_encoder
from cxrssl.exporting import export_encoder

Row = tuple[str, str, str, str]
Forward = Callable[[Tensor], Tensor]
PATCH = 14


def main() -> None:
    """Print the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="vit_small", help="ViT whose width and depth are taken")
    parser.add_argument("--native", type=int, default=112, help="side of its images")
    arguments = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    print("| format | direction | image | largest difference |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(arguments.name, arguments.native, Path(folder)):
            print("| " + " | ".join(row) + " |", flush=True)


def rows(name: str, native: int, folder: Path) -> Iterator[Row]:
    """Yield the rows of the matrix."""
    for registers in (0, 4):
        kind = f"{registers} registers"
        for label, both in (("Hugging Face", hf_in), ("timm", timm_in)):
            ours, theirs = both(name, native, registers, folder)
            yield from compare(f"{label}, {kind}", "in", native, ours, theirs)
        for layout, label in (("huggingface", "Hugging Face"), ("timm", "timm")):
            vit = own(name, native, registers, layout)
            out = export_encoder(vit, folder / f"{layout}{registers}", layout)
            ours, theirs = sequence(vit), loaded(layout, out)
            yield from compare(f"{label}, {kind}", "out", native, ours, theirs)
            apart = weights_apart(vit, load_encoder(out))
            yield f"{label}, {kind}", "out and back", "weights", f"{apart:.1e}"
            vit.interpolation = "offset"
            yield from compare(f"{label}, {kind}, control", "out", native, ours, theirs)


def compare(
    label: str, direction: str, native: int, ours: Forward, theirs: Forward
) -> Iterator[Row]:
    """Yield the largest difference at each size."""
    larger, smaller = (native + 4 * PATCH, native + PATCH), (4 * PATCH, 4 * PATCH)
    for height, width in ((native, native), larger, smaller):
        x = torch.randn(2, 3, height, width)
        with torch.no_grad():
            difference = (ours(x) - theirs(x)).abs().max().item()
        yield label, direction, f"{height} x {width}", f"{difference:.1e}"


def hf_in(name: str, native: int, registers: int, folder: Path) -> tuple[Forward, Forward]:
    """Return the forward passes of a model of transformers, here and there."""
    vit = own(name, native, registers, "huggingface")
    options: dict[str, Any] = {
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": vit.depth,
        "num_attention_heads": vit.vit.blocks[0].attn.num_heads,
        "image_size": native,
        "patch_size": PATCH,
    }
    if registers:
        config = Dinov2WithRegistersConfig(num_register_tokens=registers, **options)
        model = shuffled(Dinov2WithRegistersModel(config))
    else:
        model = shuffled(Dinov2Model(Dinov2Config(**options)))
    path = folder / f"hf{registers}"
    model.save_pretrained(path)
    return sequence(load_encoder(path)), lambda x: model(x).last_hidden_state


def timm_in(name: str, native: int, registers: int, folder: Path) -> tuple[Forward, Forward]:
    """Return the forward passes of a model of timm, here and there."""
    suffix = "reg4_" if registers else ""
    size = name.removeprefix("vit_")
    model = timm.create_model(
        f"vit_{size}_patch14_{suffix}dinov2", img_size=native, dynamic_img_size=True
    )
    shuffled(model)
    path = folder / f"timm_in{registers}"
    save_for_hf(model, path, safe_serialization=True)
    return sequence(load_encoder(path)), model.forward_features


def own(name: str, native: int, registers: int, layout: str) -> ViT:
    """Return a ViT of ours that resamples positions as a library does."""
    plain = layout == "huggingface" and not registers
    vit = ViT(
        name,
        img_size=native,
        patch_size=PATCH,
        in_chans=3,
        registers=registers,
        layer_scale=1e-5,
        interpolation="plain" if plain else "size",
    )
    shuffled(vit)
    return vit


def loaded(layout: str, out: Path) -> Forward:
    """Return the forward pass of what another library loads."""
    if layout == "timm":
        model = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        return lambda x: model.forward_features(x)
    other = AutoModel.from_pretrained(out).eval()
    return lambda x: other(x).last_hidden_state


def sequence(vit: Any) -> Forward:
    """Return a forward pass to class token, registers and patches as one sequence."""

    def forward(x: Tensor) -> Tensor:
        tokens = vit(x)
        return torch.cat([tokens.cls[:, None], tokens.registers, tokens.patches], dim=1)

    return forward


def shuffled(model: nn.Module) -> Any:
    """Make every weight random, so that none is without effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scaling = parameter.ndim < 2 and not name.endswith("bias")
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.2 * noise if scaling else 0.05 * noise)
    return model.eval()


def weights_apart(vit: nn.Module, back: nn.Module) -> float:
    """Return the largest difference of any weight."""
    others = back.state_dict()
    return max(
        (value - others[name]).abs().max().item() for name, value in vit.state_dict().items()
    )


if __name__ == "__main__":
    main()

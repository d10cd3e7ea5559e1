"""The encoder a task stands on: read from a file or given, and made ready for fine-tuning."""

import hashlib
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info

from cxrssl.backbones import Backbone, ViT, load_encoder
from cxrssl.backbones.weights import load_state
from cxrssl.errors import InputError

__all__ = ["fingerprint", "prepare_encoder", "read_encoder", "view_options"]


def prepare_encoder(
    encoder: Backbone | str,
    *,
    drop_path: float = 0.0,
    patch_size: int | None = None,
    drop_gates: bool = False,
) -> Backbone:
    """Return an encoder ready for a task.

    Args:
        encoder: A backbone, or what :func:`cxrssl.backbones.load_encoder` takes: a file or folder
            of any known format, or a name.
        drop_path: Rate of stochastic depth, rising linearly from 0 in the first block, as
            fine-tuning takes it; with 0 the encoder keeps its own. For a ViT only.
        patch_size: Side of the patches in pixels, if it is to be another one: positions and patch
            kernel are resized as in CheXWorld's segmentation, the kernel without rescaling. For a
            ViT only.
        drop_gates: Whether in-line gates are taken out, see :meth:`Backbone.drop_gates`.

    Raises:
        InputError: If the encoder cannot be read, or is no ViT where one is needed.
    """
    backbone = read_encoder(encoder) if isinstance(encoder, str) else encoder
    if drop_gates:
        backbone.drop_gates()
    if drop_path == 0 and patch_size is None:
        return backbone
    if not isinstance(backbone, ViT):
        raise InputError(
            f"drop_path and patch_size are for a ViT, the encoder is a {type(backbone).__name__}: "
            "leave them out"
        )
    if patch_size is not None and patch_size != backbone.patch_size:
        backbone = _with_patches(backbone, patch_size)
    if drop_path != 0:
        backbone.set_drop_path(drop_path, "linear")
    return backbone


def read_encoder(path_or_name: str) -> Backbone:
    """Return the encoder of a file, a folder or a name, and say what became of its weights.

    Raises:
        InputError: See :func:`cxrssl.backbones.load_encoder`.
    """
    encoder = load_encoder(path_or_name)
    rank_zero_info(f"Encoder from {encoder.load_report}")
    return encoder


def view_options(backbone: Backbone, image_size: int | None = None) -> dict[str, Any]:
    """Return the options of views that show images as an encoder's file says.

    Args:
        backbone: The encoder.
        image_size: Side in pixels; the encoder's own if None. The share of the image that is seen
            stays the same.
    """
    size = backbone.image_size if image_size is None else image_size
    options: dict[str, Any] = {
        "image_size": size,
        "in_chans": backbone.in_chans,
        "resampling": backbone.resampling,
    }
    if backbone.resize is not None:
        options["resize"] = round(backbone.resize * size / backbone.image_size)
    if backbone.normalisation is not None:
        options["mean"], options["std"] = backbone.normalisation
    return options


def fingerprint(backbone: Backbone) -> str:
    """Return a hash of the architecture and all weights, the same on every device."""
    architecture = type(backbone).__name__, sorted(backbone.arguments.items())
    digest = hashlib.blake2b(repr(architecture).encode(), digest_size=12)
    for name, value in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _with_patches(backbone: ViT, patch_size: int) -> ViT:
    resized = ViT(
        **{**backbone.arguments, "patch_size": patch_size},
        packed=backbone.packed,
        activation_checkpointing=backbone.activation_checkpointing,
    )
    for block, original in zip(resized.vit.blocks, backbone.vit.blocks, strict=True):
        block.drop_rate = original.drop_rate
    report = load_state(resized, backbone.state_dict(), "the encoder", resize_patch=True)
    resized.normalisation = backbone.normalisation
    resized.image_size, resized.resize = backbone.image_size, backbone.resize
    resized.resampling = backbone.resampling
    resized.trained_pooling = backbone.trained_pooling
    resized.load_report = report
    return resized.train(backbone.training)

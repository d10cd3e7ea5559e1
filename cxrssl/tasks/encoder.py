"""The encoder a task stands on: read from a file or given, and made ready for fine-tuning."""

import hashlib

import torch

from cxrssl.backbones import Backbone, ViT, load_encoder
from cxrssl.backbones.weights import load_state
from cxrssl.errors import InputError

__all__ = ["fingerprint", "prepare_encoder"]


def prepare_encoder(
    encoder: Backbone | str,
    *,
    drop_path: float = 0.0,
    patch_size: int | None = None,
    drop_gates: bool = False,
) -> Backbone:
    """Return an encoder ready for a task.

    Args:
        encoder: A backbone, or one of our checkpoints or ``encoder.safetensors``. Weights of timm,
            Hugging Face or official code go into a backbone with ``weights``.
        drop_path: Rate of stochastic depth, rising linearly from 0 in the first block, as
            fine-tuning takes it; with 0 the encoder keeps its own. For a ViT only.
        patch_size: Side of the patches in pixels, if it is to be another one: positions and patch
            kernel are resized as in CheXWorld's segmentation, the kernel without rescaling. For a
            ViT only.
        drop_gates: Whether in-line gates are taken out, see :meth:`Backbone.drop_gates`.

    Raises:
        InputError: If the file cannot be read or does not describe itself, or the backbone is no
            ViT where one is needed.
    """
    backbone = load_encoder(encoder) if isinstance(encoder, str) else encoder
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
    resized.load_report = report
    return resized.train(backbone.training)

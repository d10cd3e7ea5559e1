"""timm's vision transformers, with the blocks of ours and in the sizes that are asked for."""

from functools import lru_cache, partial
from typing import Any

import timm
import torch
from timm.layers import LayerNorm, Mlp, SwiGLUPacked
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from cxrssl.backbones.block import PackedBlock
from cxrssl.errors import InputError

__all__ = ["build_vit", "swiglu_width", "timm_name", "timm_reference"]

_SHORT_NAMES = {
    "vit_tiny": "vit_tiny_patch16_224",
    "vit_small": "vit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
    "vit_large": "vit_large_patch16_224",
    "vit_huge": "vit_huge_patch14_224",
    "vit_giant": "vit_giant_patch14_dinov2",
}


def build_vit(arguments: dict[str, Any]) -> VisionTransformer:
    """Return a model for the arguments of :class:`ViT`.

    Raises:
        InputError: If the model is not a VisionTransformer, or the sizes do not fit.
    """
    name = timm_name(arguments["name"])
    named = timm_reference(name)
    _check_sizes(arguments, named)
    options = {
        "patch_size": arguments["patch_size"],
        "embed_dim": arguments["width"],
        "depth": arguments["depth"],
        "num_heads": arguments["heads"],
        "init_values": arguments["layer_scale"],
        "qkv_bias": arguments["qkv_bias"],
    }
    options = {key: value for key, value in options.items() if value is not None}
    if arguments["norm_eps"] is not None:
        options["norm_layer"] = partial(LayerNorm, eps=arguments["norm_eps"])
    width = arguments["width"] or named.embed_dim
    options |= _ffn_options(arguments["ffn"], arguments["ffn_width"], width)
    return timm.create_model(
        name,
        pretrained=False,
        num_classes=0,
        global_pool="",
        img_size=arguments["img_size"],
        in_chans=arguments["in_chans"],
        class_token=arguments["class_token"],
        reg_tokens=arguments["registers"],
        no_embed_class=True,
        dynamic_img_size=True,
        block_fn=PackedBlock,
        **options,
    )


def timm_name(name: str) -> str:
    """Return timm's name of a model that may have a short one here."""
    return _SHORT_NAMES.get(name, name)


@lru_cache(maxsize=16)
def timm_reference(name: str) -> VisionTransformer:
    """Return timm's own model of a name without memory for weights, if it is one we can wrap.

    It is kept and shared: read it, change nothing.

    Raises:
        InputError: If it is not.
    """
    if not timm.is_model(name):
        raise InputError(
            f"unknown backbone {name!r}: use one of {', '.join(_SHORT_NAMES)} "
            "or the name of a timm VisionTransformer"
        )
    with torch.device("meta"):
        named = timm.create_model(name, pretrained=False, num_classes=0)
    blocks = getattr(named, "blocks", [None])
    if type(named) is not VisionTransformer or type(blocks[0]) is not Block:
        raise InputError(
            f"{name} cannot be used: only timm's VisionTransformer is supported, with its usual "
            f"blocks; this is a {type(named).__name__} of {type(blocks[0]).__name__}s"
        )
    return named


def _check_sizes(arguments: dict[str, Any], named: VisionTransformer) -> None:
    sizes = ("img_size", "patch_size", "in_chans", "width", "depth", "heads", "ffn_width")
    for key in sizes:
        if arguments[key] is not None and arguments[key] < 1:
            raise InputError(f"{key} must be positive, got {arguments[key]}")
    if arguments["ffn_width"] is not None and arguments["ffn"] is None:
        raise InputError("ffn_width needs ffn, mlp or swiglu")
    if arguments["registers"] < 0:
        raise InputError(f"registers must not be negative, got {arguments['registers']}")
    patch = arguments["patch_size"] or named.patch_embed.patch_size[0]
    if arguments["img_size"] % patch:
        raise InputError(
            f"img_size must be a multiple of patch_size {patch}, got {arguments['img_size']}"
        )
    width = arguments["width"] or named.embed_dim
    heads = arguments["heads"] or named.blocks[0].attn.num_heads
    if width % heads:
        raise InputError(f"width must be a multiple of heads, got width {width} and heads {heads}")


def _ffn_options(ffn: str | None, hidden: int | None, width: int) -> dict[str, Any]:
    # timm rounds width * ratio down; the half keeps the product from falling below what is wanted.
    if ffn == "swiglu":
        hidden = swiglu_width(width) if hidden is None else hidden
        ratio = (2 * hidden + 0.5) / width
        return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": ratio}
    if ffn == "mlp":
        ratio = 4.0 if hidden is None else (hidden + 0.5) / width
        return {"mlp_layer": Mlp, "act_layer": nn.GELU, "mlp_ratio": ratio}
    return {}


def swiglu_width(width: int) -> int:
    """Return the hidden width of DINOv2's SwiGLU."""
    return (int(width * 4 * 2 / 3) + 7) // 8 * 8

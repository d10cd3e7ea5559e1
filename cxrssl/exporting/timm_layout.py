"""The layout of timm's hub: ``model.safetensors`` and ``config.json``."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from cxrssl.backbones import Backbone, ConvNet, ViT
from cxrssl.backbones.vit_model import timm_name
from cxrssl.errors import InputError
from cxrssl.exporting.layout import (
    BICUBIC,
    UNKNOWN,
    Layout,
    each_channel,
    feed_forward,
    refuse_gates,
)

__all__ = ["timm_layout"]

_PLAIN, _SWIGLU = "vit_base_patch16_224", "vit_giant_patch14_dinov2"
"""Architectures whose feed-forward layers ``config.json`` cannot say otherwise."""

_USAGE = """\
import timm
model = timm.create_model("local-dir:{out}", pretrained=True)"""


def timm_layout(encoder: Backbone) -> Layout:
    """Return an encoder as timm's hub has it.

    Registers that have no positions get positions of 0 where the class token has one, so that no
    weight changes.

    Raises:
        InputError: If timm cannot say what the encoder is.
    """
    refuse_gates(encoder, "timm")
    if isinstance(encoder, ViT):
        name, arguments, state = _of_vit(encoder)
    elif isinstance(encoder, ConvNet):
        name, arguments = encoder.arguments["name"], {"in_chans": encoder.in_chans}
        state = _convnet_state(encoder)
    else:
        raise InputError(f"a {type(encoder).__name__} cannot be exported to timm")
    _check(name, arguments, state, encoder)
    mean, std = encoder.normalisation or UNKNOWN
    size = encoder.image_size
    config: dict[str, Any] = {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder.embed_dim,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [encoder.in_chans, size, size],
            "fixed_input_size": False,
            "interpolation": BICUBIC,
            "crop_pct": size / (encoder.resize or size),
            "crop_mode": "center",
            "mean": each_channel(mean, encoder.in_chans),
            "std": each_channel(std, encoder.in_chans),
            "num_classes": 0,
        },
    }
    return Layout("model.safetensors", state, "timm", _USAGE, "size", {"config.json": config})


def _of_vit(encoder: ViT) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Return architecture, arguments and weights of a ViT in timm."""
    vit = encoder.vit
    block = vit.blocks[0]
    name = timm_name(encoder.arguments["name"])
    mean = encoder.pooling() == "mean" or not encoder.has_class_token
    arguments: dict[str, Any] = {
        "img_size": encoder.img_size,
        "patch_size": encoder.patch_size,
        "in_chans": encoder.in_chans,
        "embed_dim": encoder.embed_dim,
        "depth": encoder.depth,
        "num_heads": block.attn.num_heads,
        "qkv_bias": block.attn.qkv.bias is not None,
        "init_values": 1e-5 if hasattr(block.ls1, "gamma") else 0.0,
        "class_token": encoder.has_class_token,
        "reg_tokens": encoder.n_registers,
        "no_embed_class": not encoder.class_position,
        "dynamic_img_size": True,
        "global_pool": "avg" if mean else "token",
        "fc_norm": False,
    }
    if encoder.arguments["ffn"] is not None or name in (_PLAIN, _SWIGLU):
        kind, _ = feed_forward(encoder)
        name = _SWIGLU if kind == "swiglu" else _PLAIN
        # timm rounds width * ratio down; the half keeps it from falling below what is wanted.
        rows = block.mlp.fc1.out_features
        plain = rows == 4 * encoder.embed_dim
        arguments["mlp_ratio"] = 4.0 if plain else (rows + 0.5) / encoder.embed_dim
    state = dict(vit.state_dict())
    if encoder.class_position and encoder.n_registers:
        table = state["pos_embed"]
        none = table.new_zeros(1, encoder.n_registers, encoder.embed_dim)
        state["pos_embed"] = torch.cat([table[:, :1], none, table[:, 1:]], dim=1)
    return name, arguments, state


def _convnet_state(encoder: ConvNet) -> dict[str, Tensor]:
    """Return the weights of a ConvNet by the names of timm's whole model."""
    own = {name.removeprefix("net."): value for name, value in encoder.state_dict().items()}
    with torch.device("meta"):
        whole = timm.create_model(encoder.arguments["name"], num_classes=0)
    # Where timm takes stages out of sequences it joins their names: stem.0 becomes stem_0.
    names = {name.replace(".", "_", 1): name for name in whole.state_dict()}
    return {names.get(name, name): value for name, value in own.items()}


def _check(
    name: str, arguments: dict[str, Any], state: dict[str, Tensor], encoder: Backbone
) -> None:
    """Refuse what timm would build otherwise than the encoder is."""
    with torch.device("meta"):
        there: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    shapes = {key: value.shape for key, value in there.state_dict().items()}
    own = {key: value.shape for key, value in state.items()}
    other = {key for key in {*shapes, *own} if shapes.get(key) != own.get(key)}
    if other:
        raise InputError(
            f"timm's {name} differs from the encoder in {sorted(other)[0]}: export to format cxrssl"
        )
    if isinstance(encoder, ViT):
        for part in ("norm", "blocks.0.norm1", "blocks.0.mlp.act", "blocks.0.attn"):
            _check_part(name, part, there.get_submodule(part), encoder.vit.get_submodule(part))


def _check_part(name: str, part: str, there: nn.Module, here: nn.Module) -> None:
    for attribute in ("eps", "approximate", "num_heads"):
        values = [getattr(module, attribute, None) for module in (there, here)]
        if values[0] != values[1]:
            raise InputError(
                f"timm's {name} has {attribute} {values[0]} in {part} and the encoder {values[1]}, "
                "which timm's files cannot say: export to format cxrssl"
            )
    if type(there) is not type(here):
        raise InputError(
            f"timm's {name} has a {type(there).__name__} as {part} and the encoder a "
            f"{type(here).__name__}, which timm's files cannot say: export to format cxrssl"
        )

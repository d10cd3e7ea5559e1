"""The layout of Hugging Face's ``Dinov2Model`` and ``Dinov2WithRegistersModel``."""

import re
from typing import Any

import torch
from torch import Tensor

from cxrssl.backbones import Backbone, ViT
from cxrssl.errors import InputError
from cxrssl.exporting.layout import (
    UNKNOWN,
    Layout,
    each_channel,
    feed_forward,
    refuse_gates,
)

__all__ = ["hugging_face_layout"]

_BICUBIC = 3  # Pillow's number
_NAMES = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^reg_token$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma$", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.(norm\d\.|mlp\.fc\d\.)", r"encoder.layer.\1.\2"),
)
_SWIGLU = {".mlp.fc1.": ".mlp.weights_in.", ".mlp.fc2.": ".mlp.weights_out."}
_QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")

_USAGE = """\
from transformers import AutoImageProcessor, AutoModel
model = AutoModel.from_pretrained("{out}")
processor = AutoImageProcessor.from_pretrained("{out}")"""


def hugging_face_layout(encoder: Backbone) -> Layout:
    """Return an encoder as Hugging Face's DINOv2 models have it.

    Queries, keys and values are cut out of their common layer; residual scales of 1 and positions
    of 0 stand for those that the encoder lacks, and change nothing.

    Raises:
        InputError: If those models cannot say what the encoder is.
    """
    if not isinstance(encoder, ViT):
        raise InputError(
            f"Hugging Face's DINOv2 models are ViTs, the encoder is a {type(encoder).__name__}: "
            "export to format timm"
        )
    refuse_gates(encoder, "Hugging Face")
    if not encoder.has_class_token:
        raise InputError(
            "Hugging Face's DINOv2 models have a class token and the encoder has none: export to "
            "format timm"
        )
    if encoder.vit.norm.eps != encoder.vit.blocks[0].norm1.eps:
        raise InputError(
            "the last norm has another epsilon than the others, which Hugging Face cannot say: "
            "export to format timm"
        )
    kind, ratio = _feed_forward(encoder)
    state = _state(encoder, kind)
    config = _config(encoder, kind, ratio)
    processor = _processor(encoder)
    return Layout(
        "model.safetensors",
        state,
        "transformers",
        _USAGE,
        "size" if encoder.n_registers else "plain",
        {"config.json": config, "preprocessor_config.json": processor},
    )


def _feed_forward(encoder: ViT) -> tuple[str, int]:
    """Return the kind of the feed-forward layers, and Hugging Face's ratio of their width."""
    kind, hidden = feed_forward(encoder)
    width = encoder.embed_dim
    for ratio in range(1, 17):
        wanted = width * ratio
        if hidden == ((int(wanted * 2 / 3) + 7) // 8 * 8 if kind == "swiglu" else wanted):
            return kind, ratio
    raise InputError(
        f"feed-forward layers of {hidden} at a width of {width} cannot be said as a whole "
        "mlp_ratio of Hugging Face: export to format timm"
    )


def _state(encoder: ViT, kind: str) -> dict[str, Tensor]:
    own = dict(encoder.vit.state_dict())
    table = own["pos_embed"]
    if not encoder.class_position:
        own["pos_embed"] = torch.cat([table.new_zeros(1, 1, encoder.embed_dim), table], dim=1)
    for block in range(encoder.depth):
        for number in (1, 2):
            own.setdefault(f"blocks.{block}.ls{number}.gamma", table.new_ones(encoder.embed_dim))
    state: dict[str, Tensor] = {}
    for name, value in own.items():
        if match := _QKV.fullmatch(name):
            place = f"encoder.layer.{match[1]}.attention.attention"
            for part, chunk in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"{place}.{part}.{match[2]}"] = chunk
        else:
            state[_renamed(name, kind)] = value
    if encoder.pretrained_mask_token is not None:
        state["embeddings.mask_token"] = encoder.pretrained_mask_token
    return state


def _renamed(name: str, kind: str) -> str:
    for pattern, replacement in _NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            break
    else:
        raise InputError(
            f"Hugging Face's DINOv2 models have nothing like {name}: export to format timm"
        )
    if kind == "swiglu":
        for ours, theirs in _SWIGLU.items():
            renamed = renamed.replace(ours, theirs)
    return renamed


def _config(encoder: ViT, kind: str, ratio: int) -> dict[str, Any]:
    block = encoder.vit.blocks[0]
    registers = encoder.n_registers
    model = "Dinov2WithRegistersModel" if registers else "Dinov2Model"
    config = {
        "architectures": [model],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": block.attn.num_heads,
        "mlp_ratio": ratio,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "layer_norm_eps": block.norm1.eps,
        "image_size": encoder.img_size,
        "patch_size": encoder.patch_size,
        "num_channels": encoder.in_chans,
        "qkv_bias": block.attn.qkv.bias is not None,
        "layerscale_value": 1.0,
        "use_swiglu_ffn": kind == "swiglu",
        "use_mask_token": encoder.pretrained_mask_token is not None,
        "torch_dtype": str(encoder.vit.pos_embed.dtype).removeprefix("torch."),
    }
    return config | ({"num_register_tokens": registers} if registers else {})


def _processor(encoder: ViT) -> dict[str, Any]:
    mean, std = encoder.normalisation or UNKNOWN
    size = encoder.image_size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": encoder.in_chans == 3,
        "do_resize": True,
        "size": {"shortest_edge": encoder.resize or size},
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": each_channel(mean, encoder.in_chans),
        "image_std": each_channel(std, encoder.in_chans),
    }

"""What the configuration files of timm and Hugging Face say of an encoder."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cxrssl.backbones.base import Channels
from cxrssl.backbones.encoder_files import EncoderFiles
from cxrssl.backbones.tokens import Pooling
from cxrssl.errors import InputError

__all__ = ["Stated", "one_if_equal", "stated_by"]

Resampling = Literal["area", "pillow"]

_HF_KINDS = ("dinov2", "dinov2_with_registers")
_ACTIVATIONS = ("gelu", None)
_BICUBIC = 3  # Pillow's number, which Hugging Face writes
_LAYERS = ("act_layer", "attn_layer", "block_fn", "embed_layer", "mlp_layer", "norm_layer")
"""Arguments of timm that change what a model computes, without a trace in its weights."""
_POOLS: dict[str, Pooling] = {"token": "class", "avg": "mean"}


@dataclass(frozen=True)
class Stated:
    """What configuration files say; None where they do not.

    Attributes:
        name: Architecture of timm.
        heads: Attention heads.
        width: Width of the tokens.
        depth: Number of blocks.
        norm_eps: Epsilon of the norms.
        normalisation: Mean and standard deviation of grey values in [0, 1].
        image_size: Side in pixels of the central square that is shown.
        resize: Pixels of the shorter side before it is cut out.
        pooling: What of the tokens stands for the image.
        doubts: What cannot be done as they say, in short sentences.
    """

    name: str | None = None
    heads: int | None = None
    width: int | None = None
    depth: int | None = None
    norm_eps: float | None = None
    normalisation: tuple[Channels, Channels] | None = None
    image_size: int | None = None
    resize: int | None = None
    pooling: Pooling | None = None
    doubts: tuple[str, ...] = ()


def stated_by(files: EncoderFiles) -> Stated:
    """Return what the configuration files of an encoder say.

    Raises:
        InputError: If they are of a model that is not built here.
    """
    config = files.config
    if "architecture" in config:
        return _by_timm(config, files.source)
    if not config:
        return Stated()
    kind = config.get("model_type")
    if kind not in _HF_KINDS:
        raise InputError(
            f"{files.source}: its config.json is of a model {kind!r}, and of Hugging Face's models "
            f"only {' and '.join(_HF_KINDS)} are built here"
        )
    activation = config.get("hidden_act")
    if activation not in _ACTIVATIONS and not config.get("use_swiglu_ffn"):
        raise InputError(f"{files.source}: hidden_act is {activation!r}, and only gelu is built")
    return _by_hugging_face(config, files.preprocessor)


def one_if_equal(values: float | Sequence[float]) -> Channels:
    """Return one number for all channels where they have the same."""
    if isinstance(values, int | float):
        return float(values)
    numbers = tuple(float(value) for value in values)
    return numbers[0] if len(set(numbers)) == 1 else numbers


def _by_hugging_face(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> Stated:
    shown = None
    if preprocessor.get("do_center_crop", True):
        shown = _side(preprocessor.get("crop_size"))
    resize = _side(preprocessor.get("size")) if preprocessor.get("do_resize", True) else None
    doubts = []
    if preprocessor.get("resample", _BICUBIC) != _BICUBIC:
        doubts.append("images are resized bicubically, not as preprocessor_config.json says")
    return Stated(
        heads=config.get("num_attention_heads"),
        width=config.get("hidden_size"),
        depth=config.get("num_hidden_layers"),
        norm_eps=config.get("layer_norm_eps"),
        normalisation=_normalisation(preprocessor),
        image_size=shown or resize,
        resize=resize if shown and resize and resize >= shown else None,
        pooling="class",
        doubts=tuple(doubts),
    )


def _normalisation(preprocessor: Mapping[str, Any]) -> tuple[Channels, Channels] | None:
    """Return mean and standard deviation of grey values in [0, 1]."""
    if not preprocessor:
        return None
    # Values of 0 to 255 are first multiplied by a factor, nearly always 1 / 255.
    factor = preprocessor.get("rescale_factor", 1 / 255)
    whole = 255 * factor if preprocessor.get("do_rescale", True) else 255.0
    whole = 1.0 if math.isclose(whole, 1.0, rel_tol=1e-6) else whole
    if not preprocessor.get("do_normalize", True):
        return 0.0, 1 / whole
    pair = (preprocessor.get(key) for key in ("image_mean", "image_std"))
    mean, std = (_scaled(one_if_equal(value), whole) for value in pair if value is not None)
    return mean, std


def _scaled(values: Channels, whole: float) -> Channels:
    if isinstance(values, float | int):
        return values / whole
    return tuple(value / whole for value in values)


def _side(size: Any) -> int | None:
    """Return pixels of a side from what an image processor calls a size."""
    if isinstance(size, Mapping):
        sides = [size[key] for key in ("shortest_edge", "height") if size.get(key)]
        return int(sides[0]) if sides else None
    return int(size) if size else None


def _by_timm(config: Mapping[str, Any], source: str) -> Stated:
    cfg = config.get("pretrained_cfg", config)
    arguments = config.get("model_args", {})
    changed = [name for name in _LAYERS if arguments.get(name) is not None]
    if changed:
        raise InputError(
            f"{source}: its config.json sets {changed[0]} to {arguments[changed[0]]!r}, which is "
            "not built here"
        )
    size = cfg.get("input_size")
    shown = int(size[-1]) if size else None
    mean, std = cfg.get("mean"), cfg.get("std")
    doubts = []
    if cfg.get("interpolation", "bicubic") != "bicubic":
        doubts.append("images are resized bicubically, not as config.json says")
    pool = arguments.get("global_pool", config.get("global_pool"))
    return Stated(
        name=str(config["architecture"]),
        heads=arguments.get("num_heads"),
        width=arguments.get("embed_dim"),
        depth=arguments.get("depth"),
        normalisation=None if None in (mean, std) else (one_if_equal(mean), one_if_equal(std)),
        image_size=shown,
        resize=None if shown is None else math.floor(shown / (cfg.get("crop_pct") or 1.0)),
        pooling=_POOLS.get(str(pool)),
        doubts=tuple(doubts),
    )

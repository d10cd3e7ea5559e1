"""Where an encoder's weights lie, and the configuration that stands beside them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from cxrssl.backbones.weight_files import read_weights
from cxrssl.errors import InputError

__all__ = ["EncoderFiles", "files_of_timm", "find_encoder"]

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_SHARDED = "model.safetensors.index.json"
# What the weights of a folder are called, in this order; the last two are those of a run.
_WEIGHTS = (
    "model.safetensors",
    _SHARDED,
    "pytorch_model.bin",
    "encoder.safetensors",
    "checkpoints/encoder.safetensors",
)
_HUB = (_CONFIG, _PREPROCESSOR, "model.safetensors", _SHARDED, "model-*-of-*.safetensors")


@dataclass(frozen=True)
class EncoderFiles:
    """An encoder as it was found.

    Attributes:
        source: Where, for messages.
        state: Its weights by name.
        description: What a file of ours says of itself, None in others.
        config: What ``config.json`` says, empty where there is none.
        preprocessor: What ``preprocessor_config.json`` says, empty where there is none.
    """

    source: str
    state: dict[str, Tensor]
    description: dict[str, Any] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)


def find_encoder(path_or_name: str | Path) -> EncoderFiles:
    """Return the weights of a file, of a folder, of ``timm:NAME`` or of ``hf:ORGANISATION/NAME``.

    Raises:
        InputError: If there is nothing there or it cannot be read or fetched.
    """
    kind, _, name = str(path_or_name).partition(":")
    if kind == "timm":
        return _from_timm(name)
    path = _from_hub(name) if kind == "hf" else Path(path_or_name)
    if path.is_dir():
        return _beside(_weights_in(path), str(path_or_name))
    return _beside(path, str(path_or_name))


def files_of_timm(model: Any) -> EncoderFiles:
    """Return the weights of a timm model and what timm knows of it."""
    cfg = dict(model.pretrained_cfg)
    name = str(cfg["architecture"])
    config = {"architecture": name, "pretrained_cfg": cfg}
    blocks = getattr(model, "blocks", None)
    if blocks is not None and hasattr(blocks[0], "attn"):
        cfg["input_size"] = (model.patch_embed.proj.in_channels, *model.patch_embed.img_size)
        config["model_args"] = {
            "num_heads": blocks[0].attn.num_heads,
            "depth": len(blocks),
        }
    return EncoderFiles(f"timm:{name}", model.state_dict(), None, config)


def _from_timm(name: str) -> EncoderFiles:
    if not timm.is_model(name.partition(".")[0]):
        raise InputError(
            f"timm has no model {name!r}: give one of timm.list_pretrained(), e.g. "
            "timm:vit_small_patch14_dinov2.lvd142m"
        )
    try:
        model = timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the weights of timm:{name} can be neither found in timm's cache nor fetched "
            f"({type(error).__name__}): connect to the network once, or give their file"
        ) from error
    return files_of_timm(model)


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"hf:{name} needs the package huggingface_hub: pip install huggingface_hub, or give "
            "the folder of its files"
        ) from error
    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=list(_HUB))
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"hf:{name} can be neither found in Hugging Face's cache nor fetched "
            f"({type(error).__name__}): connect to the network once, or give the "
            "folder of its files"
        ) from error


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder} holds no weights: expected one of {', '.join(_WEIGHTS)} in it")


def _beside(path: Path, source: str) -> EncoderFiles:
    """Return the weights of a file and the configuration beside it, where they belong together."""
    if path.name == _SHARDED:
        state, description = _read_shards(path), None
    else:
        state, description = read_weights(path)
    folder = path.parent
    if path.name not in _WEIGHTS[:3]:  # of a name of its own, it may belong to no configuration
        return EncoderFiles(source, state, description)
    return EncoderFiles(
        source, state, description, _read_json(folder / _CONFIG), _read_json(folder / _PREPROCESSOR)
    )


def _read_shards(path: Path) -> dict[str, Tensor]:
    """Return the tensors of all files that an index names."""
    files = _read_json(path).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{path} names no files in weight_map")
    state: dict[str, Tensor] = {}
    for name in sorted(set(files.values())):
        if Path(name).name != name:
            raise InputError(f"{path} names the file {name!r}, which is not beside it")
        state |= read_weights(path.parent / name)[0]
    missing = sorted(set(files) - set(state))
    if missing:
        raise InputError(f"{path} names {missing[0]}, which is in none of its files")
    return state


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected an object")
    return content

"""Reading weight files without running what is in them."""

import argparse
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cxrssl.backbones.file_kinds import PICKLED, kind_of_file
from cxrssl.errors import InputError

__all__ = ["read_plain", "read_weights"]

DESCRIPTION = "cxrssl"
"""Key under which our checkpoints and safetensors files describe themselves."""

# Modules that I-JEPA's files hold side by side, each as a state dict.
_SIDE_BY_SIDE = ("encoder", "predictor", "target_encoder")
# Where the wanted state dict of a file may be; MLVICX calls its encoder and heads "online".
_WRAPPERS = ("state_dict", "teacher", "model", "online")


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return the tensors of a weight file by name, and how the file describes itself if it does.

    Of I-JEPA's files, which hold several state dicts side by side, the names begin with the name of
    the state dict.

    Raises:
        InputError: If the file is missing, broken, or holds anything but plain data.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        return _read_safetensors(path)
    content = read_plain(path, "weight file")
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, expected named tensors")
    return _tensors_of(content, path), content.get(DESCRIPTION)


def read_plain(path: Path, expected: str) -> Any:
    """Return what a file of ``torch.save`` holds: tensors and plain data, on the CPU.

    Args:
        path: The file.
        expected: What it should be, for messages, such as ``checkpoint``.

    Raises:
        InputError: If the file is missing, broken, of another kind, or holds objects, which are
            never made: that would run code of whoever wrote the file.
    """
    if not path.is_file():
        raise InputError(f"there is no {expected} {path}{' but a folder' * path.is_dir()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols; the outcome is checked
            # CheXWorld's files hold the arguments of their run; a namespace is plain data too.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise InputError(_refusal(path, expected, error)) from error


def _refusal(path: Path, expected: str, error: Exception) -> str:
    """Return why a file was not read."""
    kind = kind_of_file(path)
    if kind in PICKLED and isinstance(error, pickle.UnpicklingError):
        return (
            f"{path} holds more than tensors and plain data and is not loaded, since that could "
            "run foreign code; convert it to safetensors where it can be trusted"
        )
    return (
        f"{path} is no readable {expected} ({type(error).__name__}): it is {kind}, expected was a "
        "whole file of torch.save"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is no readable safetensors file but {kind_of_file(path)}: {error}"
        ) from error
    return state, _description(metadata, path)


def _description(metadata: Mapping[str, str], path: Path) -> dict[str, Any] | None:
    if DESCRIPTION not in metadata:
        return None
    try:
        return dict(json.loads(metadata[DESCRIPTION]))
    except ValueError as error:
        raise InputError(
            f"what {path} says of itself in its metadata ({DESCRIPTION}) is no JSON: {error}"
        ) from error


def _tensors_of(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    else:
        content = _joined(content)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        some = ", ".join(list(content)[:5])
        raise InputError(f"{path} holds no named tensors (top-level keys: {some})")
    return tensors


def _joined(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state dicts that stand side by side as one, or the content if there are none."""
    modules = [name for name in _SIDE_BY_SIDE if isinstance(content.get(name), Mapping)]
    if not modules:
        return content
    return {f"{name}.{key}": value for name in modules for key, value in content[name].items()}

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

from cxrssl.errors import InputError

__all__ = ["read_weights"]

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
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on pickle protocols; the outcome is checked
            # CheXWorld's files hold the arguments of their run; a namespace is plain data too.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors and plain data and is not loaded, since that could "
            "run foreign code; convert it to safetensors where it can be trusted"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no readable weight file ({type(error).__name__})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, expected named tensors")
    return _tensors_of(content, path), content.get(DESCRIPTION)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is no readable safetensors file: {error}") from error
    return state, json.loads(metadata[DESCRIPTION]) if DESCRIPTION in metadata else None


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

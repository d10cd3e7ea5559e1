"""Loading pretrained weights into a backbone, completely or not at all."""

import argparse
import json
import math
import pickle
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.backbones.base import Backbone
from cxrssl.backbones.convnet import ConvNet
from cxrssl.backbones.convnet_formats import to_convnet_names
from cxrssl.backbones.positions import resample_positions
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.weight_formats import to_timm_names
from cxrssl.errors import InputError

__all__ = ["LoadReport", "load_backbone_weights", "load_encoder", "load_state", "read_weights"]

DESCRIPTION = "cxrssl"
"""Key under which our checkpoints and safetensors files describe themselves."""

# Parts of published checkpoints that are not the encoder.
_NOT_ENCODER = ("head.", "fc_norm.", "dino_head.", "ibot_head.", "pooler.", "classifier.")
# Modules that I-JEPA's files hold side by side, each as a state dict.
_SIDE_BY_SIDE = ("encoder", "predictor", "target_encoder")
_KERNEL = "patch_embed.proj.weight"
_BACKBONES: dict[str, type[ViT] | type[ConvNet]] = {"ViT": ViT, "ConvNet": ConvNet}
_GATES = "gates."
Normalisation = tuple[float | tuple[float, ...], float | tuple[float, ...]]


@dataclass
class LoadReport:
    """What happened to each key, under timm's names, or ours for a ConvNet.

    Attributes:
        source: The file.
        format: The recognised layout.
        matched: Keys copied as they are.
        resized: Keys that were changed to fit: positions of another grid, folded colours, patches
            of another size.
        missing: Keys of the backbone that the file lacks and that were allowed to keep their start.
        left_over: Keys of the file that have no place in the encoder (heads, mask token).
    """

    source: str
    format: str
    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = [f"{len(self.matched)} weights matched"]
        for word, keys in (
            ("resized", self.resized),
            ("missing", self.missing),
            ("left over", self.left_over),
        ):
            if keys:
                counts.append(f"{word}: {', '.join(_first(keys))}")
        return f"{self.source} ({self.format}): {'; '.join(counts)}"


def load_backbone_weights(
    backbone: Backbone,
    path: str | Path,
    *,
    prefix: str | None = None,
    allow_missing: Collection[str] = (),
    normalisation: tuple[Normalisation, Normalisation] | None = None,
    resize_patch: bool = False,
    drop_gates: bool = False,
) -> LoadReport:
    """Load weights stored by timm, torchvision, Hugging Face, official code or cxrssl.

    The official code may be that of DINOv2, CheXWorld or I-JEPA, or for a ResNet of MLVICX. Of a
    file with an encoder and its moving average (teacher, target encoder) the average is loaded.

    Every weight of the backbone comes from the file or the call fails and changes nothing; only
    gates (MLVICX) keep their start where the file has none. Positions of another grid are resampled
    in the ViT's interpolation mode. RGB kernels are summed into one channel, which equals feeding
    the grey image three times. A mask token in the file is kept as
    ``backbone.pretrained_mask_token`` for the objective.

    Args:
        backbone: Filled in place.
        path: ``.safetensors`` or a file of ``torch.save``, read without unpickling objects.
        prefix: What the names of the wanted encoder's weights start with, to choose another one of
            the file, e.g. ``encoder.`` for the context encoder of CheXWorld or I-JEPA.
        allow_missing: timm names that may be missing, e.g. ``{"reg_token"}`` to add registers.
        normalisation: ((mean, std) the weights were trained with, (mean, std) used here); the
            difference is folded into the patch kernel and its bias, exactly. A ConvNet pads with
            zeros, where no such change is exact, and refuses it.
        resize_patch: Whether a patch kernel of another size is resized, bicubic and without
            rescaling: with half the side, outputs are about a quarter as large (CheXWorld's
            fine-tuning on smaller patches). Refused otherwise.
        drop_gates: Whether gates in the file are left out where the backbone has none, as the
            published evaluation of MLVICX does. Refused otherwise: what lies behind a gate was
            trained on what the gate leaves.

    Raises:
        InputError: If the file cannot be read, is of no known backbone, or does not fit.
    """
    state, description = read_weights(path)
    place = _place(state, description) if prefix is None else prefix
    if isinstance(backbone, ConvNet):
        if normalisation is not None or resize_patch:
            raise InputError("normalisation and resize_patch are for a ViT, not for a ConvNet")
        if place is not None:
            state = _starting_with(place, state, str(path))
        return _load_convnet(backbone, state, str(path), allow_missing, drop_gates)
    if not isinstance(backbone, ViT):
        raise InputError(
            f"weights are known for ViT and ConvNet, not for {type(backbone).__name__}"
        )
    return load_state(
        backbone,
        state,
        str(path),
        prefix=place,
        allow_missing=allow_missing,
        normalisation=normalisation,
        resize_patch=resize_patch,
        drop_gates=drop_gates,
    )


def load_encoder(path: str | Path, *, drop_gates: bool = False) -> ViT | ConvNet:
    """Return the encoder of one of our checkpoints or of an ``encoder.safetensors``.

    Args:
        path: The file.
        drop_gates: Whether in-line gates of the encoder are left out, see
            :func:`load_backbone_weights`.

    Raises:
        InputError: If the file cannot be read or does not describe itself.
    """
    _, description = read_weights(path)
    if description is None:
        raise InputError(
            f"{path} does not say which encoder it holds; build a backbone of the right size and "
            "call load_backbone_weights(backbone, path)"
        )
    name, arguments = description["backbone"]["class"], description["backbone"]["arguments"]
    if name not in _BACKBONES:
        raise InputError(f"{path} holds a {name}; known are {', '.join(_BACKBONES)}")
    backbone = _BACKBONES[name](**(arguments | ({"gates": []} if drop_gates else {})))
    load_backbone_weights(backbone, path, drop_gates=drop_gates)
    return backbone.eval()


def load_state(
    vit: ViT,
    state: Mapping[str, Tensor],
    source: str,
    *,
    prefix: str | None = None,
    allow_missing: Collection[str] = (),
    normalisation: tuple[Normalisation, Normalisation] | None = None,
    resize_patch: bool = False,
    drop_gates: bool = False,
) -> LoadReport:
    """Load weights of a ViT that are already read; see :func:`load_backbone_weights`.

    Args:
        vit: Filled in place.
        state: Tensors by name, as :func:`read_weights` returns them.
        source: Where they come from, for messages.
        prefix: See :func:`load_backbone_weights`.
        allow_missing: See :func:`load_backbone_weights`.
        normalisation: See :func:`load_backbone_weights`.
        resize_patch: See :func:`load_backbone_weights`.
        drop_gates: See :func:`load_backbone_weights`.

    Raises:
        InputError: If they are of no known ViT or do not fit.
    """
    if prefix is not None:
        state = _starting_with(prefix, state, source)
    name, found = to_timm_names(state, source)
    report = LoadReport(source=source, format=name)
    mask_token = found.pop("mask_token", None)
    report.left_over = [key for key in found if key.startswith(_NOT_ENCODER)]
    for key in report.left_over:
        del found[key]
    if mask_token is not None:
        report.left_over.append("mask_token")
    gates = {_GATES + key: value for key, value in vit.gates.state_dict().items()}
    own = vit.vit.state_dict() | gates
    _fit_patch_kernel(found, own, report, normalisation, resize_patch)
    _fit_positions(found, vit, report)
    _check(found, own, report, _allowed(found, own, report, allow_missing, drop_gates))
    vit.vit.load_state_dict({k: v for k, v in found.items() if k not in gates}, strict=False)
    found_gates = {k.removeprefix(_GATES): v for k, v in found.items() if k in gates}
    vit.gates.load_state_dict(found_gates, strict=bool(found_gates))
    if mask_token is not None:
        vit.pretrained_mask_token = mask_token.reshape(1, -1)
    return report


def _load_convnet(
    convnet: ConvNet,
    state: Mapping[str, Tensor],
    source: str,
    allow_missing: Collection[str],
    drop_gates: bool,
) -> LoadReport:
    own = convnet.state_dict()
    first = next(key for key, value in own.items() if value.ndim == 4)
    name, found, rest = to_convnet_names(state, list(convnet.net), first[len("net.") :], source)
    report = LoadReport(source=source, format=name, left_over=rest)
    if first in found and found[first].ndim == 4:
        kernel = _fold_channels(found[first], own[first].shape[1])
        if kernel is not found[first]:
            found[first] = kernel
            report.resized.append(first)
    allowed = _allowed(found, own, report, allow_missing, drop_gates)
    # Old files do not count batches.
    allowed |= {key for key in own if key.endswith(".num_batches_tracked")}
    _check(found, own, report, allowed)
    convnet.load_state_dict(found, strict=False)
    return report


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
    for key in ("state_dict", "teacher", "model"):
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


def _place(state: Mapping[str, Tensor], description: dict[str, Any] | None) -> str | None:
    """Return what the encoder's weights start with in a checkpoint of ours, None elsewhere."""
    place = (description or {}).get("encoder", "")
    prefix = f"{place}."
    return prefix if place and any(key.startswith(prefix) for key in state) else None


def _starting_with(prefix: str, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    chosen = {key: value for key, value in state.items() if key.startswith(prefix)}
    if not chosen:
        modules = dict.fromkeys(key.partition(".")[0] for key in state)
        raise InputError(
            f"{source} holds no weights that start with {prefix!r}; it holds those of "
            f"{', '.join(_first(list(modules)))}"
        )
    return chosen


def _fit_patch_kernel(
    found: dict[str, Tensor],
    own: Mapping[str, Tensor],
    report: LoadReport,
    normalisation: tuple[Normalisation, Normalisation] | None,
    resize: bool,
) -> None:
    kernel = found.get(_KERNEL)
    if kernel is None or kernel.ndim != 4:
        return
    _, wanted, *size = own[_KERNEL].shape
    if resize and list(kernel.shape[2:]) != size:
        kernel = F.interpolate(kernel.float(), size=size, mode="bicubic").to(kernel.dtype)
    # Folding comes after resizing, since it is exact for the kernel that is used.
    if normalisation is not None:
        kernel, shift = _fold_normalisation(kernel, *normalisation)
        found["patch_embed.proj.bias"] = found["patch_embed.proj.bias"] + shift
    kernel = _fold_channels(kernel, wanted)
    if kernel is not found[_KERNEL]:
        found[_KERNEL] = kernel
        report.resized.append(_KERNEL)


def _fold_channels(kernel: Tensor, wanted: int) -> Tensor:
    """Return a kernel for another number of channels that do the same with a grey image."""
    if kernel.shape[1] != wanted and wanted == 1:
        return kernel.sum(1, keepdim=True)
    if kernel.shape[1] != wanted and kernel.shape[1] == 1:
        return kernel.expand(-1, wanted, -1, -1) / wanted
    return kernel


def _allowed(
    found: dict[str, Tensor],
    own: Mapping[str, Tensor],
    report: LoadReport,
    allow_missing: Collection[str],
    drop_gates: bool,
) -> set[str]:
    """Return which keys may be missing; take gates out of what was found if they are dropped."""
    gates = [key for key in found if key.startswith(_GATES)]
    if drop_gates:
        report.left_over += gates
        for key in gates:
            del found[key]
    elif gates and not any(key.startswith(_GATES) for key in own):
        raise InputError(
            f"{report.source} holds in-line gates and the backbone has none: build it with gates, "
            "or load with drop_gates=True, where what lies behind them sees larger values"
        )
    own_gates = () if gates and not drop_gates else (k for k in own if k.startswith(_GATES))
    return {*allow_missing, *own_gates}


def _fold_normalisation(
    kernel: Tensor, trained: Normalisation, used: Normalisation
) -> tuple[Tensor, Tensor]:
    """Return kernel and bias change after which inputs normalised as ``used`` give equal outputs.

    A grey value g enters as (g - m) / s here and as (g - m_c) / s_c there, hence
    (g - m_c) / s_c = s / s_c * (g - m) / s + (m - m_c) / s_c for each channel c.
    """
    channels = kernel.shape[1]
    (mean, std), (own_mean, own_std) = (
        tuple(_per_channel(value, channels) for value in pair) for pair in (trained, used)
    )
    shift = (kernel.sum((2, 3)) * ((own_mean - mean) / std)).sum(1)
    return kernel * (own_std / std).view(1, -1, 1, 1), shift


def _per_channel(value: float | tuple[float, ...], channels: int) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float32).expand(channels)


def _fit_positions(found: dict[str, Tensor], vit: ViT, report: LoadReport) -> None:
    table = found.get("pos_embed")
    if table is None or table.ndim != 3:
        return
    original = table.shape
    rows = table.shape[1]
    side = math.isqrt(rows)
    has_class = side * side != rows
    if has_class:
        side = math.isqrt(rows - 1)
        if side * side != rows - 1:
            raise InputError(
                f"{report.source}: a position table of {rows} rows is no square grid, with or "
                "without a class token"
            )
    first, patches = (table[:, :1], table[:, 1:]) if has_class else (None, table)
    patches = resample_positions(patches, (side, side), vit.grid, vit.interpolation)
    if vit.class_position:
        head = table.new_zeros(1, 1, table.shape[2]) if first is None else first
        patches = torch.cat([head, patches], dim=1)
    elif first is not None and "cls_token" in found:
        # Same function: without a position of its own the class token takes it up.
        found["cls_token"] = found["cls_token"] + first
        report.resized.append("cls_token")
    found["pos_embed"] = patches
    if (side, side) != vit.grid or patches.shape != original:
        report.resized.append("pos_embed")


def _check(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    report: LoadReport,
    allow_missing: Collection[str],
) -> None:
    unknown = [key for key in found if key not in own]
    missing = [key for key in own if key not in found]
    shapes = [
        f"{key} is {tuple(found[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in found and found[key].shape != own[key].shape
    ]
    kernel = found.get(_KERNEL)
    if kernel is not None and kernel.ndim == 4 and kernel.shape[2:] != own[_KERNEL].shape[2:]:
        shapes.insert(0, "patches of another size need resize_patch=True")
    report.missing = [key for key in missing if key in allow_missing]
    refused = [key for key in missing if key not in allow_missing]
    complaints = []
    if shapes:
        complaints.append("; ".join(_first(shapes)))
    if refused:
        complaints.append("missing there: " + ", ".join(_first(refused)))
    if unknown:
        complaints.append("unknown here: " + ", ".join(_first(unknown)))
    if complaints:
        raise InputError(
            f"{report.source} ({report.format}) does not fit the backbone: {'. '.join(complaints)}"
        )
    report.matched = [key for key in own if key in found and key not in report.resized]


def _first(items: list[str], count: int = 4) -> list[str]:
    rest = len(items) - count
    return [*items[:count], f"and {rest} more"] if rest > 0 else items

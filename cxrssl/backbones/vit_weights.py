"""Fitting pretrained weights to a ViT, completely or not at all."""

import re
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.backbones.load_report import (
    LoadReport,
    check_fit,
    fold_channels,
    fresh_gates,
    starting_with,
)
from cxrssl.backbones.positions import resample_positions
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.vit_shape import square_grid
from cxrssl.backbones.weight_formats import to_timm_names

__all__ = ["Normalisation", "load_state"]

Normalisation = tuple[float | tuple[float, ...], float | tuple[float, ...]]
"""Mean and standard deviation, of all channels or of each."""

# Parts of published checkpoints that are not the encoder.
_NOT_ENCODER = ("head.", "fc_norm.", "dino_head.", "ibot_head.", "pooler.", "classifier.")
_KERNEL = "patch_embed.proj.weight"
_SCALE = re.compile(r"blocks\.\d+\.ls[12]\.gamma")


def load_state(
    vit: ViT,
    state: Mapping[str, Tensor],
    source: str,
    *,
    prefix: str | None = None,
    allow_missing: Collection[str] = (),
    normalisation: tuple[Normalisation, Normalisation] | None = None,
    resize_patch: bool = False,
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

    Raises:
        InputError: If they are of no known ViT or do not fit.
    """
    if prefix is not None:
        state = starting_with(prefix, state, source)
    name, found = to_timm_names(state, source)
    report = LoadReport(source=source, format=name)
    mask_token = found.pop("mask_token", None)
    report.left_over = [key for key in found if key.startswith(_NOT_ENCODER)]
    for key in report.left_over:
        del found[key]
    if mask_token is not None:
        report.left_over.append("mask_token")
    own = vit.vit.state_dict()
    _fit_patch_kernel(found, own, report, normalisation, resize_patch)
    _fit_positions(found, vit, report)
    _drop_ones(found, own, report)
    allowed = {*allow_missing, *fresh_gates(found, own, report, _is_gate)}
    check_fit(found, own, report, allowed, _patch_advice(found, own))
    vit.vit.load_state_dict(found, strict=False)
    if mask_token is not None:
        vit.pretrained_mask_token = mask_token.reshape(1, -1)
    return report


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
    kernel = fold_channels(kernel, wanted)
    if kernel is not found[_KERNEL]:
        found[_KERNEL] = kernel
        report.resized.append(_KERNEL)


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
    registers = found["reg_token"].shape[1] if "reg_token" in found else 0
    n_first, side = square_grid(table.shape[1], registers, report.source)
    first, patches = table[:, :n_first], table[:, n_first:]
    if registers and n_first == registers + int("cls_token" in found):
        # The same function: registers take up the positions they have of their own in timm.
        found["reg_token"] = found["reg_token"] + first[:, n_first - registers :]
        first = first[:, : n_first - registers]
    patches = resample_positions(patches, (side, side), vit.grid, vit.interpolation)
    if vit.class_position:
        head = first if first.shape[1] else table.new_zeros(1, 1, table.shape[2])
        patches = torch.cat([head, patches], dim=1)
    elif first.shape[1] and "cls_token" in found:
        # Same function: without a position of its own the class token takes it up.
        found["cls_token"] = found["cls_token"] + first
        report.resized.append("cls_token")
    found["pos_embed"] = patches
    if (side, side) != vit.grid or patches.shape != original:
        report.resized.append("pos_embed")


def _drop_ones(found: dict[str, Tensor], own: Mapping[str, Tensor], report: LoadReport) -> None:
    """Leave out residual scales of 1, which change nothing, where the backbone has none."""
    scales = [key for key in found if _SCALE.fullmatch(key)]
    if any(key in own or bool((found[key] != 1).any()) for key in scales):
        return
    for key in scales:
        del found[key]
    report.left_over += scales


def _patch_advice(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    kernel = found.get(_KERNEL, own[_KERNEL])
    other = kernel.ndim == 4 and kernel.shape[2:] != own[_KERNEL].shape[2:]
    return ["patches of another size need resize_patch=True"] if other else []


def _is_gate(key: str) -> bool:
    return ".gate." in key

"""The architecture of a ConvNet, read off its tensors."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from cxrssl.backbones.weight_formats import below_prefix

__all__ = ["convnet_shape"]

_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
_TORCHVISION = re.compile(r"layer(\d)\.(\d+)\.(conv\d)\.weight")
_MLVICX = re.compile(r"encoder\.([4-7])\.(\d+)\.(conv\d)\.weight")
_GATE = re.compile(r"cbt(\d+)\.sam\.conv1\.weight")


def convnet_shape(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """Return the layout and the arguments of :class:`ConvNet`, None if it is no known ResNet.

    Args:
        state: Weights as they stand in a file of MLVICX, of torchvision or of timm.
    """
    for layout, pattern, kernel in (
        ("official MLVICX", _MLVICX, "encoder.0.weight"),
        ("timm or torchvision", _TORCHVISION, "conv1.weight"),
    ):
        found = below_prefix(state, kernel)
        if found is None or found[kernel].ndim != 4:
            continue
        blocks = [match.groups() for key in found if (match := pattern.match(key))]
        name = _RESNETS.get((any(part == "conv3" for *_, part in blocks), _counts(blocks)))
        if name is not None:
            arguments = {"name": name, "in_chans": found[kernel].shape[1]}
            return layout, arguments | _gates(found)
    return None


def _counts(blocks: Iterable[tuple[str, ...]]) -> tuple[int, ...]:
    """Return the number of blocks of each stage."""
    stages: dict[str, set[str]] = {}
    for stage, number, _ in blocks:
        stages.setdefault(stage, set()).add(number)
    return tuple(len(stages[stage]) for stage in sorted(stages))


def _gates(found: Mapping[str, Tensor]) -> dict[str, Any]:
    kernels = {
        int(match[1]) - 1: value.shape[-1]
        for key, value in found.items()
        if (match := _GATE.fullmatch(key))
    }
    if not kernels:
        return {}
    return {"gates": sorted(kernels), "gate_kernel": max(kernels.values())}

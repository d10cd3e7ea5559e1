"""Fitting pretrained weights to a ConvNet, completely or not at all."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from cxrssl.backbones.convnet import ConvNet
from cxrssl.backbones.load_report import (
    LoadReport,
    check_fit,
    fold_channels,
    fresh_gates,
    starting_with,
)
from cxrssl.backbones.weight_formats import below_prefix
from cxrssl.errors import InputError

__all__ = ["load_convnet_state"]

State = dict[str, Tensor]

# What follows the last stage in the models of timm and torchvision, and both heads of MLVICX.
_NOT_FEATURES = (
    *("fc.", "head.", "classifier.", "conv_head.", "norm_head.", "norm.", "bn2."),
    *("projetion.", "resize_project."),  # spelt so
)
# MLVICX keeps its ResNet as a sequence, whose numbers 2 and 3 are the activation and the pooling,
# and the gates beside it.
_MLVICX_KERNEL = "encoder.0.weight"
_MLVICX_STAGES = {"0": "conv1", "1": "bn1"} | {str(n + 3): f"layer{n}" for n in range(1, 5)}
_MLVICX_STAGE = re.compile(r"encoder\.(\d+)\.(.+)")
_MLVICX_GATE = re.compile(r"(?:encoder\.)?cbt([1-5])\.(cam\.fc\.0|cam\.fc\.2|sam\.conv1)\.(.+)")
_MLVICX_GATE_PARTS = {"cam.fc.0": "down", "cam.fc.2": "up", "sam.conv1": "spatial"}


def load_convnet_state(
    convnet: ConvNet,
    state: Mapping[str, Tensor],
    source: str,
    *,
    prefix: str | None = None,
    allow_missing: Collection[str] = (),
) -> LoadReport:
    """Load weights of a ConvNet that are already read; see :func:`load_backbone_weights`.

    Args:
        convnet: Filled in place.
        state: Tensors by name, as :func:`read_weights` returns them.
        source: Where they come from, for messages.
        prefix: See :func:`load_backbone_weights`.
        allow_missing: See :func:`load_backbone_weights`.

    Raises:
        InputError: If they are of no known ConvNet or do not fit.
    """
    if prefix is not None:
        state = starting_with(prefix, state, source)
    own = convnet.state_dict()
    kernel = next(key for key, value in own.items() if value.ndim == 4)
    name, found = _to_own_names(state, kernel, set(convnet.net), source)
    left_over = [key for key in found if key.startswith(_NOT_FEATURES)]
    report = LoadReport(source=source, format=name, left_over=left_over)
    for key in left_over:
        del found[key]
    if kernel in found and found[kernel].ndim == 4:
        folded = fold_channels(found[kernel], convnet.in_chans)
        if folded is not found[kernel]:
            found[kernel] = folded
            report.resized.append(kernel)
    # Old files lack the counters of batch norms, which nothing reads at a fixed momentum.
    counters = {key for key in own if key.endswith(".num_batches_tracked")}
    allowed = {*allow_missing, *counters, *fresh_gates(found, own, report, _is_gate)}
    check_fit(found, own, report, allowed)
    report.missing = [key for key in report.missing if key not in counters]
    convnet.load_state_dict(found, strict=False)
    return report


def _to_own_names(
    state: Mapping[str, Tensor], kernel: str, modules: Collection[str], source: str
) -> tuple[str, State]:
    """Return the format of a state dict and the same weights under a ConvNet's names."""
    if (found := below_prefix(state, _MLVICX_KERNEL)) and "encoder.4.0.conv1.weight" in found:
        return "official MLVICX", _from_mlvicx(found)
    if found := below_prefix(state, kernel):
        return "cxrssl", found
    bare = kernel.removeprefix("net.")
    for marker in (bare, bare.replace("_", ".", 1)):
        if found := below_prefix(state, marker):
            return "timm or torchvision", _from_timm(found, modules)
    some = ", ".join(list(state)[:3])
    raise InputError(
        f"{source} holds no ConvNet of this architecture (keys such as {some}, and no {bare}); "
        "expected the keys of timm, of torchvision, of the official code of MLVICX, or of cxrssl"
    )


def _from_timm(state: State, modules: Collection[str]) -> State:
    """Rename the modules that timm takes out of their sequences, ``stem.0`` to ``stem_0``."""
    renamed = {}
    for key, value in state.items():
        names = key, key.replace(".", "_", 1)
        known = [name for name in names if name.partition(".")[0] in modules]
        renamed[f"net.{known[0]}" if known else key] = value
    return renamed


def _from_mlvicx(state: State) -> State:
    renamed = {}
    for key, value in state.items():
        if match := _MLVICX_GATE.fullmatch(key):
            number, part, rest = match.groups()
            renamed[f"gates.{int(number) - 1}.{_MLVICX_GATE_PARTS[part]}.{rest}"] = value
        elif (match := _MLVICX_STAGE.fullmatch(key)) and match[1] in _MLVICX_STAGES:
            renamed[f"net.{_MLVICX_STAGES[match[1]]}.{match[2]}"] = value
        else:
            renamed[key] = value
    return renamed


def _is_gate(key: str) -> bool:
    return key.startswith("gates.")

"""The layouts in which weights of ConvNets are stored, and their translation to ours."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from cxrssl.errors import InputError

__all__ = ["to_convnet_names"]

State = dict[str, Tensor]

# MLVICX keeps its ResNet as a sequence, with the pooling and the activation as numbers 2 and 3.
_MLVICX_NAMES = [
    (r"^encoder\.0\.", "net.conv1."),
    (r"^encoder\.1\.", "net.bn1."),
    *((rf"^encoder\.{stage + 3}\.", f"net.layer{stage}.") for stage in (1, 2, 3, 4)),
    *((rf"^encoder\.cbt{k + 1}\.cam\.fc\.", f"gates.{k}.channel.") for k in range(5)),
    *((rf"^encoder\.cbt{k + 1}\.sam\.conv1\.", f"gates.{k}.spatial.") for k in range(5)),
]


def to_convnet_names(
    state: Mapping[str, Tensor], modules: Collection[str], first: str, source: str
) -> tuple[str, State, list[str]]:
    """Return the format of a state dict, its encoder under our names, and the names of the rest.

    Args:
        state: Tensors by name.
        modules: Names of the modules of the ConvNet's ``net``, as timm flattens them.
        first: Name of its first kernel among them.
        source: Where the weights come from, for messages.

    Raises:
        InputError: If no known layout is found in the keys.
    """
    dotted = {f"{module.replace('_', '.')}.": f"net.{module}." for module in modules}
    kernel = first.replace("_", ".")
    if (found := _below(state, "encoder.0.weight")) and any(
        key.startswith("encoder.4.") for key in found
    ):
        return "MLVICX", *_split(found, _MLVICX_NAMES)
    if found := _below(state, f"net.{first}"):
        return "cxrssl", *_split(found, [(r"^(?=net\.|gates\.)", "")])
    if found := _below(state, kernel):
        rules = [(f"^{re.escape(old)}", new) for old, new in dotted.items()]
        return "timm or torchvision", *_split(found, rules)
    some = ", ".join(list(state)[:3])
    raise InputError(
        f"{source} holds no {kernel} and so no such ConvNet (keys such as {some}); expected the "
        "keys of timm, torchvision, the official code of MLVICX, or cxrssl"
    )


def _below(state: Mapping[str, Tensor], marker: str) -> State:
    """Return the entries below the shortest prefix in front of ``marker``."""
    prefixes = [key[: -len(marker)] for key in state if key == marker or key.endswith(f".{marker}")]
    if not prefixes:
        return {}
    prefix = min(prefixes, key=len)
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _split(state: State, rules: list[tuple[str, str]]) -> tuple[State, list[str]]:
    """Return what the rules rename, and the names of what they do not."""
    renamed: State = {}
    rest = []
    for key, value in state.items():
        for pattern, replacement in rules:
            name, count = re.subn(pattern, replacement, key)
            if count:
                renamed[name] = value
                break
        else:
            rest.append(key)
    return renamed, rest

"""The layouts in which ViT weights are stored, and their translation to timm's names."""

import re
from collections.abc import Callable, Mapping

from torch import Tensor, cat

from cxrssl.errors import InputError

__all__ = ["below_prefix", "to_timm_names"]

State = dict[str, Tensor]

# What the moving average of an encoder is called in files that hold the encoder as well.
_AVERAGED = ("teacher", "target_encoder")
_HF_ATTENTION = re.compile(
    r"encoder\.layer\.(\d+)\.attention\.(?:attention\.(query|key|value)|(q|k|v)_proj)\.(weight|bias)"
)
_HF_NAMES = [
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
    (r"^encoder\.layer\.(\d+)\.layer_scale(\d)\.lambda1$", r"blocks.\1.ls\2.gamma"),
    (r"^encoder\.layer\.(\d+)\.mlp\.weights_in\.", r"blocks.\1.mlp.fc1."),
    (r"^encoder\.layer\.(\d+)\.mlp\.weights_out\.", r"blocks.\1.mlp.fc2."),
    (r"^encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"^layernorm\.", "norm."),
]
_OFFICIAL_NAMES = [
    (r"^register_tokens$", "reg_token"),
    # Training dumps put blocks in chunks; the second number is the block's own.
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]


def to_timm_names(state: Mapping[str, Tensor], source: str) -> tuple[str, State]:
    """Return the format of a state dict and the same weights under timm's names.

    Raises:
        InputError: If no known layout of a ViT is found in the keys.
    """
    for name, recognises, translate in _FORMATS:
        found = recognises(state)
        if found is not None:
            return name, translate(found)
    some = ", ".join(list(state)[:3])
    raise InputError(
        f"{source} holds no ViT that is known here (keys such as {some}); expected the keys of "
        "timm, of Hugging Face Dinov2Model, of the official code of DINOv2, CheXWorld or I-JEPA, "
        "or of cxrssl"
    )


def below_prefix(state: Mapping[str, Tensor], marker: str) -> State | None:
    """Return the entries below the prefix in front of ``marker``, or None where it is missing.

    Where several modules hold such a key, a moving average goes before what it averages.
    """
    prefixes = [key[: -len(marker)] for key in state if key == marker or key.endswith(f".{marker}")]
    if not prefixes:
        return None
    prefix = min(prefixes, key=lambda p: (not any(word in p for word in _AVERAGED), len(p)))
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def _jepa_encoder(state: Mapping[str, Tensor]) -> State | None:
    encoders = {k: v for k, v in state.items() if k.startswith(("encoder.", "target_encoder."))}
    return below_prefix(encoders, "patch_embed.proj.weight")


def _rename(state: State, rules: list[tuple[str, str]]) -> State:
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in rules:
            name, count = re.subn(pattern, replacement, name)
            if count:
                break
        renamed[name] = value
    return renamed


def _from_hf(state: State) -> State:
    parts: dict[tuple[str, str], State] = {}
    rest = {}
    for key, value in state.items():
        match = _HF_ATTENTION.fullmatch(key)
        if match:
            block, old, new, kind = match.groups()
            parts.setdefault((block, kind), {})[(old or new)[0]] = value
        else:
            rest[key] = value
    joined = {
        f"blocks.{block}.attn.qkv.{kind}": cat([qkv["q"], qkv["k"], qkv["v"]])
        for (block, kind), qkv in parts.items()
    }
    return _rename(rest, _HF_NAMES) | joined


def _from_official(state: State) -> State:
    return _rename(_rename(state, _OFFICIAL_NAMES[:2]), _OFFICIAL_NAMES[2:])


_FORMATS: list[tuple[str, Callable[[Mapping[str, Tensor]], State | None], Callable[[State], State]]]
_FORMATS = [
    (
        "Hugging Face",
        lambda state: below_prefix(state, "embeddings.patch_embeddings.projection.weight"),
        _from_hf,
    ),
    (
        "cxrssl",
        lambda state: below_prefix(state, "vit.patch_embed.proj.weight"),
        lambda s: {key.removeprefix("vit."): value for key, value in s.items()},
    ),
    ("CheXWorld or I-JEPA", _jepa_encoder, _from_official),
    (
        "timm or official DINOv2",
        lambda state: below_prefix(state, "patch_embed.proj.weight"),
        _from_official,
    ),
]

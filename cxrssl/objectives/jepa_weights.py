"""Checkpoints that CheXWorld and I-JEPA have released: both encoders and the predictor."""

import re
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cxrssl.backbones.weights import LoadReport, load_state
from cxrssl.errors import InputError

if TYPE_CHECKING:
    from cxrssl.objectives.jepa import JEPA

__all__ = ["holds_jepa", "load_jepa"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the released weights were normalised with: ImageNet's colours, on grey images."""

_NAMES = (
    (r"^predictor_embed\.", "embed."),
    (r"^predictor_blocks\.", "blocks."),
    (r"^predictor_norm\.", "norm."),
    (r"^predictor_proj\.", "proj."),
    (r"^policy_net\.", "policy.mlp."),
)
_FIXED = "predictor_pos_embed"  # computed here, for any grid


def holds_jepa(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the layout of a released checkpoint."""
    return any(re.search(r"^predictor\.(module\.)?predictor_embed\.", key) for key in state)


def load_jepa(objective: "JEPA", state: Mapping[str, Tensor], path: str) -> str:
    """Load context encoder, target encoder and predictor of a released checkpoint.

    Nothing is changed unless all of it fits; the number of heads cannot be checked. The patch
    kernels are changed so that images normalised by the objective's views give the very
    tokens that ImageNet's normalisation gave, whatever the number of channels.

    Returns:
        One sentence on what was done.

    Raises:
        InputError: If a part does not fit.
    """
    prefix = _prefix(state, "predictor")
    predictor = {
        _ours(key.removeprefix(prefix)): value
        for key, value in state.items()
        if key.startswith(prefix) and not key.endswith(_FIXED)
    }
    _check(objective, predictor, path)
    views = objective.views
    ours = views.mean, views.std
    reports: list[LoadReport] = [
        load_state(vit, state, path, prefix=prefix, normalisation=((_MEAN, _STD), ours))
        for vit, prefix in (
            (objective.backbone, _prefix(state, "encoder")),
            (objective.encoder, _prefix(state, "target_encoder")),
        )
    ]
    objective.predictor.load_state_dict(predictor)
    return (
        f"Context encoder, target encoder ({len(reports[1].matched) + len(reports[1].resized)} "
        f"weights each) and predictor ({len(predictor)} weights) from {path}."
    )


def _check(objective: "JEPA", predictor: Mapping[str, Tensor], path: str) -> None:
    """Refuse a predictor that does not fit, and warn where it would fit with another meaning."""
    own = {name: value.shape for name, value in objective.predictor.state_dict().items()}
    told = any(name.startswith("policy.") for name in predictor)
    if told and not objective.predictor.actions:
        raise InputError(
            f"{path} is of a model that is told an action: load it into WorldModel, with its "
            "action and distortions switched on"
        )
    wrong = [name for name in {*own, *predictor} if own.get(name) != _shape(predictor.get(name))]
    if wrong or (told and objective.predictor.conditioning != "concat"):
        some = ", ".join(sorted(wrong)[:4]) or "it was trained with conditioning 'concat'"
        raise InputError(
            f"the predictor of {path} does not fit the one configured here (width, depth, "
            f"conditioning, action): {some}"
        )
    if objective.target_order != ("row_first" if told else "column_first"):
        warnings.warn(
            f"{path} was trained with axis_order={'published' if told else 'unified'!r}: its "
            "predictor reads the positions of targets wrongly here until it has learnt anew",
            stacklevel=3,
        )
    if told and getattr(objective.views, "normalise_action", False):
        warnings.warn(
            f"{path} was trained on raw actions, and normalise_action is on: its predictor reads "
            "them wrongly here until it has learnt anew",
            stacklevel=3,
        )


def _shape(value: Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape


def _prefix(state: Mapping[str, Tensor], part: str) -> str:
    """Return what stands before the keys of a part, with the wrapper of distributed training."""
    wrapped = f"{part}.module."
    return wrapped if any(key.startswith(wrapped) for key in state) else f"{part}."


def _ours(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name

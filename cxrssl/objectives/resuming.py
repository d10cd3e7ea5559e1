"""Whether a checkpoint is one of the run that is to go on from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from cxrssl.errors import InputError

__all__ = ["check_optimizers", "check_weights"]

_NAMED = 3
"""Weights of each kind that a message names."""
_OF_ADAMW, _OF_LARS = "betas", "trust"
"""Settings of a group that tell the optimisers apart."""
_SETTINGS = ("betas", "eps", "momentum", "trust", "lr_factor", "decay_factor")
"""Settings that torch would take from the checkpoint in silence."""


def check_weights(module: nn.Module, name: str, checkpoint: Mapping[str, Any], source: str) -> None:
    """Refuse a checkpoint that is not of this module.

    Args:
        module: What is going to be filled.
        name: Its class.
        checkpoint: With everything that the module's state has.
        source: Where the checkpoint is from, for messages.

    Raises:
        InputError: If it is of another project, another class, or another size.
    """
    run = checkpoint.get("cxrssl_run")
    if not isinstance(run, Mapping):
        raise InputError(
            f"{source} is a checkpoint of Lightning, but not of a run of cxrssl: an encoder in it "
            "may be given as model.backbone.weights"
        )
    of = run.get("module") or checkpoint.get("cxrssl", {}).get("objective", name)
    if of != name:
        raise InputError(
            f"{source} is of a run of {of}, expected was one of {name}: its encoder may be given "
            "as model.backbone.weights, to a task as model.encoder"
        )
    misfits = _misfits(module.state_dict(), checkpoint["state_dict"])
    if misfits:
        raise InputError(
            f"{source} does not fit {name} as configured here, and a run goes on only as it was "
            f"(model.init_from starts a new one from it, at another resolution too): {misfits}"
        )


def _misfits(own: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return what does not fit, empty if all does."""
    both = [name for name in own if name in given]
    lists = {
        "of another shape": [
            f"{name} ({_shape(given[name])}, here {_shape(own[name])})"
            for name in both
            if _shape(given[name]) != _shape(own[name])
        ],
        "missing": [name for name in own if name not in given],
        "unknown": [name for name in given if name not in own],
    }
    return "; ".join(_listed(kind, names) for kind, names in lists.items() if names)


def _listed(kind: str, names: Sequence[str]) -> str:
    more = "" if len(names) <= _NAMED else ", ..."
    return f"{len(names)} {kind}: {', '.join(names[:_NAMED])}{more}"


def _shape(value: Any) -> str:
    return " x ".join(map(str, getattr(value, "shape", ()))) or "a number"


def check_optimizers(
    optimizers: Sequence[Optimizer], states: Sequence[Mapping[str, Any]] | None, source: str
) -> None:
    """Refuse the states of other optimisers than those of this run.

    Args:
        optimizers: Of this run.
        states: Of the checkpoint; None if it has none.
        source: Where the checkpoint is from, for messages.

    Raises:
        InputError: If they differ in kind, groups, or what is in them.
    """
    if not states:
        raise InputError(
            f"{source} holds weights without the optimiser's state, so no run can go on from it: "
            "start one from it with model.init_from, and save with save_weights_only off"
        )
    for optimizer, state in zip(optimizers, states, strict=False):
        reason = _other(optimizer, state)
        if reason:
            raise InputError(
                f"the optimiser's state in {source} is of another recipe ({reason}), or of other "
                "trained weights: resume with the settings of its config.yaml, or start a new run "
                "from its weights with model.init_from"
            )


def _other(optimizer: Optimizer, state: Mapping[str, Any]) -> str:
    """Return what is another one than expected, empty if nothing is."""
    own, given = optimizer.param_groups, state["param_groups"]
    kinds = [_kind(groups[0]) for groups in (given, own)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]}, here {kinds[1]}"
    sizes = [[len(group["params"]) for group in groups] for groups in (given, own)]
    if sizes[0] != sizes[1]:
        return f"groups of {sizes[0]} weights, here of {sizes[1]}"
    return _other_settings(given, own) or _other_shapes(state, own)


def _other_settings(given: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> str:
    for old, new in zip(given, own, strict=True):
        for name in _SETTINGS:
            if name in old and name in new and old[name] != new[name]:
                return f"{name} {old[name]}, here {new[name]}"
    return ""


def _other_shapes(state: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> str:
    weights = [weight for group in own for weight in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    for number, weight in zip(numbers, weights, strict=True):
        for name, value in state["state"].get(number, {}).items():
            if getattr(value, "ndim", 0) and value.shape != weight.shape:
                return f"{name} of {_shape(value)}, here of {_shape(weight)}"
    return ""


def _kind(group: Mapping[str, Any]) -> str:
    return "AdamW" if _OF_ADAMW in group else "LARS" if _OF_LARS in group else "another"

"""Options of tasks that are checked before anything is made."""

from collections.abc import Mapping, Sequence
from typing import get_args

from cxrssl.errors import InputError
from cxrssl.losses import UncertainPolicy

__all__ = ["check_choice", "check_names", "check_uncertain"]


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        raise InputError(f"{option} must be {' or '.join(map(repr, choices))}, got {value!r}")


def check_names(option: str, names: Sequence[str]) -> None:
    """Refuse no names at all, and one that is there twice."""
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise InputError(f"{option} must be a list of at least one name, each once, got {names!r}")


def check_uncertain(
    uncertain: UncertainPolicy | Mapping[str, UncertainPolicy], findings: Sequence[str]
) -> None:
    """Refuse an unknown policy, or one for something that is no finding."""
    by_name = uncertain if isinstance(uncertain, Mapping) else {findings[0]: uncertain}
    if unknown := sorted(set(by_name) - set(findings)):
        raise InputError(
            f"uncertain names {', '.join(unknown)}; the findings are {', '.join(findings)}"
        )
    for policy in by_name.values():
        check_choice("uncertain", policy, get_args(UncertainPolicy))

"""The run that a file of weights is from: its settings, its curves, and its module."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from cxrssl.errors import InputError

__all__ = ["Run", "find_run", "rebuild"]

T = TypeVar("T")

_CONFIG, _METRICS, _FOLDER, _LAST = "config.yaml", "metrics.csv", "checkpoints", "last.ckpt"


@dataclass(frozen=True)
class Run:
    """What lies beside a file of weights in the folder of its run.

    Attributes:
        config: The settings.
        history: Points (step, value) of every metric that was logged.
        checkpoint: The whole module, None where only the encoder is there.
    """

    config: dict[str, Any]
    history: dict[str, list[tuple[int, float]]]
    checkpoint: Path | None


def find_run(file: str | Path) -> Run | None:
    """Return the run that a checkpoint or encoder file is from, None where it lies elsewhere.

    Args:
        file: ``<run>/checkpoints/<name>`` or ``<run>/<name>``, beside the run's ``config.yaml``.

    Raises:
        InputError: If that file is no YAML.
    """
    file = Path(file)
    folder = file.resolve().parent
    folder = folder.parent if folder.name == _FOLDER else folder
    if not (folder / _CONFIG).is_file():
        return None
    try:
        config = yaml.safe_load((folder / _CONFIG).read_text())
    except yaml.YAMLError as error:
        raise InputError(f"{folder / _CONFIG} is no YAML: {error}") from error
    whole = file if file.suffix == ".ckpt" else file.with_name(_LAST)
    return Run(
        config if isinstance(config, dict) else {},
        _history(folder / _METRICS),
        whole if whole.is_file() else None,
    )


def rebuild(run: Run, kind: type[T], **changes: Any) -> T:
    """Return the module of a run as its settings build it, with weights as at its start.

    Args:
        run: The run.
        kind: What it has to be.
        changes: Arguments of the module that take the place of those in the settings.

    Raises:
        InputError: If the settings build nothing of that kind.
    """
    model = run.config.get("model")
    if not isinstance(model, dict) or "class_path" not in model:
        raise InputError(f"the settings of the run ({_CONFIG}) name no model")
    arguments = {**model.get("init_args", {}), **changes}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, "model")
    try:
        given = parser.parse_object({"model": {**model, "init_args": arguments}})
        built: T = parser.instantiate(given).model
    except ArgumentError as error:
        raise InputError(
            f"the settings of the run ({_CONFIG}) build no {kind.__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    return built


def _history(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of a table of metrics with a column ``step``; none without the file."""
    if not path.is_file():
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)
        table = pd.read_csv(path)
    if "step" not in table:
        return {}
    curves = {}
    for name in table.columns.drop("step"):
        values = pd.to_numeric(table[name], errors="coerce")
        told = values.notna()
        points = zip(table["step"][told].tolist(), values[told].tolist(), strict=True)
        curves[str(name)] = [(int(step), float(value)) for step, value in points]
    return curves

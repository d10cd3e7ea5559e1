"""What the files of a run tell of an encoder's training: never paths, never patients."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import yaml

__all__ = ["Provenance", "read_provenance"]

_RUN = "cxrssl.run"  # the key under which a run says how far it was and on what
_PROBES = ("probe/", "test/")
_ENCODER = "encoder.safetensors"


@dataclass(frozen=True)
class Provenance:
    """What is known of a training; empty where nothing is.

    Attributes:
        datasets: Names of datasets.
        images: Number of training images.
        recipe: Facts by name.
        probes: Name, step and value of the last scores.
    """

    datasets: list[str] = field(default_factory=list)
    images: int | None = None
    recipe: dict[str, str] = field(default_factory=dict)
    probes: list[tuple[str, int, float]] = field(default_factory=list)


def read_provenance(path: Path, description: Mapping[str, Any] | None) -> Provenance:
    """Return what a checkpoint's description and the files of its run tell.

    Args:
        path: The checkpoint or ``encoder.safetensors``; ``config.yaml`` and ``metrics.csv`` are
            looked for in its folder and the one above.
        description: How it describes itself.
    """
    run = _run_of(path)
    config = _config(_beside(path, "config.yaml"))
    facts = {
        "objective": (description or {}).get("objective") or _name(config, "model"),
        "backbone": _backbone(description),
        "steps": _count(run.get("steps")),
        "epochs": _count(run.get("epochs")),
        "images in a step": _count(run.get("batch")),
        "precision": run.get("precision") or config.get("trainer", {}).get("precision"),
        "processes": _count(run.get("processes")),
        "software": _software(description),
    }
    data = _name(config, "data")
    datasets = run.get("datasets") or ([data] if data else [])
    return Provenance(
        datasets=[name for name in map(str, datasets) if not {"/", "\\"} & set(name)],
        images=run.get("images"),
        recipe={name: str(value) for name, value in facts.items() if value},
        probes=_probes(_beside(path, "metrics.csv")),
    )


def _run_of(path: Path) -> dict[str, Any]:
    """Return what a run has written of itself into the file, or into the encoder beside it."""
    for file in dict.fromkeys((path, path.parent / _ENCODER)):
        if file.suffix == ".safetensors" and file.is_file():
            with safetensors.safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
            if _RUN in metadata:
                found: dict[str, Any] = json.loads(metadata[_RUN])
                return found
    return {}


def _beside(path: Path, name: str) -> Path | None:
    folders = (path, path.parent, path.parent.parent)
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}  # of another program
    return content if isinstance(content, dict) else {}


def _name(config: Mapping[str, Any], part: str) -> str | None:
    entry = config.get(part)
    path = entry.get("class_path") if isinstance(entry, dict) else None
    return None if path is None else str(path).rpartition(".")[2]


def _backbone(description: Mapping[str, Any] | None) -> str | None:
    backbone = (description or {}).get("backbone")
    return None if backbone is None else f"{backbone['class']} {backbone['arguments'].get('name')}"


def _software(description: Mapping[str, Any] | None) -> str | None:
    version = (description or {}).get("version")
    return None if version is None else f"cxrssl {version}"


def _count(value: Any) -> str | None:
    return f"{value:,}" if value else None


def _probes(path: Path | None) -> list[tuple[str, int, float]]:
    """Return the last value of each score in a table of metrics."""
    if path is None:
        return []
    table = pd.read_csv(path)
    scores = []
    for name in table.columns:
        if str(name).startswith(_PROBES) and "step" in table:
            known = table[["step", name]].dropna()
            if len(known) and math.isfinite(value := float(known[name].iloc[-1])):
                scores.append((str(name), int(known["step"].iloc[-1]), value))
    return scores

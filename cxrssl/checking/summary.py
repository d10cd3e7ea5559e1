"""What was found, in a few lines that name no patient."""

import pandas as pd

from cxrssl.checking.check import Checked

__all__ = ["summary"]

_SAMPLE = 5


def summary(checked: Checked) -> str:
    """Return what was found, as text for a screen."""
    lines = [f"{name}: {_splits(splits)}" for name, splits in checked.images.items()]
    if not checked.opened:
        lines.append("images were not opened: names alone were compared")
    else:
        lines += [*_corrupt(checked.corrupt), *_duplicates(checked.duplicates)]
    lines.append(_patients(checked.patients))
    if checked.levels:
        lines += ["", f"What training on {next(iter(checked.images))} exposes:"]
    for name, split, level in checked.levels:
        lines.append(f"  {name}{f', {split}' if split else ''}: {level}")
    return "\n".join(lines) + "\n"


def _splits(counts: dict[str | None, int]) -> str:
    total = f"{sum(counts.values()):,} images"
    parts = ", ".join(f"{name} {number:,}" for name, number in counts.items() if name)
    return f"{total} ({parts})" if parts else f"{total}, no splits"


def _corrupt(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["every image can be read"]
    counts = table["state"].value_counts()
    lines = [", ".join(f"{number:,} {state}" for state, number in counts.items()) + ":"]
    lines += [f"  {row.path}: {row.cause}" for row in table.head(_SAMPLE).itertuples()]
    more = len(table) - _SAMPLE
    return lines + ([f"  and {more:,} more, see corrupt.csv"] if more > 0 else [])


def _duplicates(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["no image has a copy"]
    copies = table["reason"].value_counts()
    listed = ", ".join(f"{number:,} {reason}" for reason, number in copies.items())
    across = int((table.groupby("cluster")["index"].nunique() > 1).sum())
    shared = f", {across:,} of them across indices" if across else ""
    clusters = table["cluster"].nunique()
    return [f"{copies.sum():,} copies in {clusters:,} clusters{shared} ({listed})"]


def _patients(table: pd.DataFrame) -> str:
    if table.empty:
        return "no patient stands in more than one split"
    patients = len(table.drop_duplicates(["index", "dataset", "patient_id"]))
    return f"{patients:,} patients stand in more than one split, see patients.csv"

"""The results of an evaluation as text for a screen."""

import math
from typing import Any

import pandas as pd

from cxrssl.evaluation.results import Results

__all__ = ["score_table"]

_TITLES = {"auroc": "AUROC", "auprc": "AUPRC"}
_MACRO = "macro"


def score_table(results: Results) -> str:
    """Return AUROC and AUPRC with their intervals, and what differs, as a table for a screen.

    Findings are rows and methods columns, in a block for each encoder and size. Below come the
    differences between means over findings, and how well the patients' metadata are told.
    """
    data = results.description["data"]
    counts = ", ".join(f"{data['images'][split]:,} {split}" for split in data["images"])
    lines = [
        f"{counts} images; scores of {data['patients']['test']:,} test patients, 95 % intervals "
        f"from {results.description['options']['replicates']:,} resamples of them"
    ]
    lines.append(f"Leak level: {results.description['leaks']['statement']}")
    if data["validation_from_training"]:
        lines.append("validation images are training patients, for the index has none")
    if data["unreadable"]:
        lines.append(f"{data['unreadable']:,} images could not be read and are left out")
    for finding, reason in results.description["not_scored"].items():
        lines.append(f"not scored: {finding} ({reason})")
    for metric, title in _TITLES.items():
        lines += ["", title, _aligned(_scores(results.scores, metric))]
    if len(results.comparison):
        lines += ["", "Differences of macro scores", _aligned(_comparison(results.comparison))]
    if len(results.metadata):
        lines += ["", "Accuracy for metadata", _aligned(_metadata(results.metadata))]
    return "\n".join(lines) + "\n"


def _scores(scores: pd.DataFrame, metric: str) -> list[list[str]]:
    """Return a block of rows for each encoder and size."""
    methods = list(dict.fromkeys(scores["method"]))
    rows = []
    for (encoder, size), block in scores[scores["metric"] == metric].groupby(
        ["encoder", "image_size"], sort=False
    ):
        rows.append([f"{encoder} ({size} px)", *methods])
        for finding, of_finding in block.groupby("finding", sort=False):
            cells = of_finding.set_index("method").loc[methods].to_dict("records")
            rows.append([f"  {finding}", *(_interval(cell, "value") for cell in cells)])
    return rows


def _comparison(comparison: pd.DataFrame) -> list[list[str]]:
    rows = [["", "metric", "method", "difference", "p"]]
    for row in comparison[comparison["finding"] == _MACRO].to_dict("records"):
        pair = (
            f"{row['first_encoder']} ({row['first_image_size']} px) - "
            f"{row['second_encoder']} ({row['second_image_size']} px)"
        )
        difference = _interval(row, "difference", "+.3f")
        rows.append(
            [f"  {pair}", _TITLES[row["metric"]], row["method"], difference, _p(row["p_bootstrap"])]
        )
    return rows


def _metadata(metadata: pd.DataFrame) -> list[list[str]]:
    return [
        ["", "target", "accuracy", "majority", "images"],
        *(
            [
                f"  {row['encoder']} ({row['image_size']} px)",
                row["target"],
                f"{row['accuracy']:.3f} +- {row['std']:.3f}",
                f"{row['majority']:.3f}",
                f"{row['images']:,}",
            ]
            for row in metadata.to_dict("records")
        ),
    ]


def _interval(row: dict[Any, Any], name: str, style: str = ".3f") -> str:
    value, low, high = (f"{row[key]:{style}}" for key in (name, "low", "high"))
    return value if math.isnan(row["low"]) else f"{value} [{low}, {high}]"


def _p(p: float) -> str:
    return "-" if math.isnan(p) else f"{p:.3f}"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )

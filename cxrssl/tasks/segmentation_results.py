"""Dice of each image, its summary under both conventions, and overlays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.dice import summarise_dice
from cxrssl.analysis.overlays import plot_overlays
from cxrssl.analysis.resampling import patients_of
from cxrssl.tasks.results import Results

__all__ = ["segmentation_results"]


def segmentation_results(
    predictions: Mapping[str, NDArray[Any]],
    examples: Mapping[str, NDArray[Any]],
    structures: Sequence[str],
    rows: pd.DataFrame,
) -> Results:
    """Return Dice of each image, means with intervals over patients, and overlays.

    Args:
        predictions: ``image_number``, ``dice`` (n, K) and ``empty`` (n, K) of the test images.
        examples: ``image``, ``truth`` and ``prediction`` of some images; may be empty.
        structures: Names of the K structures.
        rows: Rows of the index that the test has shown, numbered as the predictions say.
    """
    rows = rows.iloc[predictions["image_number"]]
    dice = predictions["dice"].astype(np.float64)
    summary = summarise_dice(dice, predictions["empty"], structures, patients=patients_of(rows))
    each = {"path": rows["path"].to_numpy()}
    for place, name in enumerate(structures):
        each |= {f"dice/{name}": dice[:, place], f"empty/{name}": predictions["empty"][:, place]}
    figures = {}
    if examples:
        figures["overlays"] = plot_overlays(
            examples["image"], examples["truth"], examples["prediction"], list(structures)
        )
    tables = {"scores": summary, "dice": pd.DataFrame(each)}
    return Results(tables, figures, _text(summary))


def _text(summary: pd.DataFrame) -> str:
    cells = [
        f"{row.mean:.3f} ({row.std:.3f}) [{row.low:.3f}, {row.high:.3f}]"
        for row in summary.itertuples(index=False)
    ]
    table = summary.assign(cell=cells).pivot(index="structure", columns="convention", values="cell")
    order = summary["structure"].drop_duplicates()
    return "Dice: mean (std over images) [95 % interval]\n" + table.loc[order].to_string()

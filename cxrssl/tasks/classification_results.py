"""Scores, predictions and attention maps of a classification, after its test."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.attention import plot_attention
from cxrssl.analysis.intervals import score_predictions
from cxrssl.analysis.resampling import patients_of
from cxrssl.errors import InputError
from cxrssl.tasks.results import Results, TestImages

__all__ = ["attention_figure", "classification_results", "examples"]

_EXAMPLES = 4
_SHOWN = 6


def classification_results(
    predictions: Mapping[str, NDArray[Any]], findings: Sequence[str], rows: pd.DataFrame
) -> Results:
    """Return scores with intervals over patients, and the predictions of each image.

    Args:
        predictions: ``image_number``, ``labels`` and ``probabilities`` of the test images.
        findings: Names of the findings.
        rows: Rows of the index that the test has shown, numbered as the predictions say.
    """
    labels, probabilities = predictions["labels"], predictions["probabilities"]
    rows = rows.iloc[predictions["image_number"]]
    scores = score_predictions(probabilities, labels, findings, patients=patients_of(rows))
    columns = {
        "path": rows["path"].to_numpy(),
        **{f"label/{name}": labels[:, place] for place, name in enumerate(findings)},
        **{f"probability/{name}": probabilities[:, place] for place, name in enumerate(findings)},
    }
    tables = {"scores": scores, "predictions": pd.DataFrame(columns)}
    return Results(tables, {}, _text(scores))


def attention_figure(
    images: NDArray[np.floating],
    attention: NDArray[np.floating],
    findings: Sequence[str],
    *,
    labels: NDArray[np.floating],
    probabilities: NDArray[np.floating],
) -> Figure:
    """Return where a head looks for the findings that these images have most often.

    Args:
        images: (n, H, W) in [0, 1].
        attention: (n, heads, F, h, w).
        findings: Names of the F findings.
        labels: (n, F).
        probabilities: (n, F).
    """
    order = np.argsort(-(labels == 1).sum(0), kind="stable")[:_SHOWN]
    return plot_attention(
        images,
        attention[:, :, order],
        [findings[place] for place in order],
        labels=labels[:, order],
        probabilities=probabilities[:, order],
    )


def examples(
    predictions: Mapping[str, NDArray[Any]], images: TestImages
) -> tuple[NDArray[np.intp], Tensor]:
    """Return the places of test images with the most findings, and their views (n, C, H, W)."""
    present = (predictions["labels"] == 1).sum(1)
    places = np.sort(np.argsort(-present, kind="stable")[:_EXAMPLES])
    return places, images.images(predictions["image_number"][places].tolist(), "test")


def _text(scores: pd.DataFrame) -> str:
    """Return a table of AUROC and AUPRC with their intervals."""
    shown = scores[scores["metric"].isin(("auroc", "auprc"))]
    if shown.empty:
        raise InputError(
            "no finding has both positive and negative test images, so nothing can be scored: "
            f"{', '.join(scores.attrs['undefined'])}"
        )
    cells = [
        f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in shown.itertuples(index=False)
    ]
    table = shown.assign(cell=cells).pivot(index="finding", columns="metric", values="cell")
    counts = shown.drop_duplicates("finding").set_index("finding")[["images", "positives"]]
    whole = table[["auroc", "auprc"]].join(counts).loc[counts.index]
    lines = whole.to_string()
    undefined = scores.attrs["undefined"]
    return lines + (f"\nNot scored, of one class only: {', '.join(undefined)}" if undefined else "")

"""Generated reports beside what was to be written, and their scores, after a test."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.reports import report_scores, score_reports
from cxrssl.analysis.resampling import patients_of
from cxrssl.errors import InputError
from cxrssl.tasks.results import Results

__all__ = ["report_results"]


def report_results(predictions: Mapping[str, NDArray[Any]], rows: pd.DataFrame) -> Results:
    """Return scores with intervals over patients, and the reports of each image.

    Args:
        predictions: ``image_number``, ``reference`` and ``generated`` of the test images.
        rows: Rows of the index that the test has shown, numbered as the predictions say.

    Raises:
        InputError: If no image could be read.
    """
    if not len(predictions.get("image_number", ())):
        raise InputError("no test image could be read, so there is no report to score")
    generated, references = predictions["generated"].tolist(), predictions["reference"].tolist()
    rows = rows.iloc[predictions["image_number"]]
    scores = score_reports(generated, references, patients=patients_of(rows))
    columns = {
        "path": rows["path"].to_numpy(),
        "reference": references,
        "generated": generated,
        "rouge_l": report_scores(generated, references)["rouge_l"],
    }
    return Results({"scores": scores, "reports": pd.DataFrame(columns)}, {}, _text(scores))


def _text(scores: pd.DataFrame) -> str:
    lines = [
        f"{row.metric} {row.value:.3f}, median {row.median:.3f} [{row.low:.3f}, {row.high:.3f}]"
        for row in scores.itertuples(index=False)
    ]
    return f"{scores['reports'].iloc[0]} reports\n" + "\n".join(lines)

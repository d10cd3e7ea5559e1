"""What an evaluation has found, and its files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from cxrssl.analysis.calibration import ReliabilityCurve, reliability_curve
from cxrssl.analysis.evaluation_figures import plot_few_label, plot_reliability, plot_scores
from cxrssl.analysis.metrics import known_labels

__all__ = ["Results", "series"]

_TABLES = ("scores", "comparison", "subgroups", "few_label", "metadata", "predictions")
_FIGURES = ("scores", "few_label", "reliability")


@dataclass(frozen=True)
class Results:
    """The tables of an evaluation; one that was not asked for is empty.

    Attributes:
        scores: For each ``encoder``, ``image_size`` in pixels and ``method`` the rows of
            :func:`~cxrssl.analysis.intervals.score_predictions` for the test images.
        comparison: For each pair and ``method`` the rows of
            :func:`~cxrssl.analysis.comparison.compare_predictions`.
        subgroups: The rows of :func:`~cxrssl.analysis.subgroups.score_subgroups`.
        few_label: The rows of :func:`~cxrssl.analysis.few_label.few_label_curve`.
        metadata: The rows of :func:`~cxrssl.analysis.metadata.metadata_accuracy`.
        predictions: ``path`` and ``split`` of validation and test images, with
            ``label/<finding>`` and ``probability/<finding>``, for each encoder, size and method.
        description: Plain data that says what was evaluated on what, and how.
    """

    scores: pd.DataFrame
    comparison: pd.DataFrame
    subgroups: pd.DataFrame
    few_label: pd.DataFrame
    metadata: pd.DataFrame
    predictions: pd.DataFrame
    description: dict[str, Any]

    def write(self, folder: str | Path) -> None:
        """Write tables as Parquet, the scores as JSON too, figures and ``evaluation.json``.

        Files of an earlier evaluation in the folder are replaced, or removed where this one has
        nothing for them.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TABLES:
            table: pd.DataFrame = getattr(self, name)
            path = folder / f"{name}.parquet"
            path.unlink(missing_ok=True)
            if len(table):
                table.to_parquet(path, index=False)
        self.scores.to_json(folder / "scores.json", orient="records", indent=1)
        (folder / "evaluation.json").write_text(json.dumps(self.description, indent=1) + "\n")
        for name in _FIGURES:
            (folder / f"{name}.png").unlink(missing_ok=True)
        for name, figure in self._figures():
            figure.savefig(folder / f"{name}.png")

    def reliability(self, method: str | None = None) -> dict[str, dict[str, ReliabilityCurve]]:
        """Return the curve of each finding and series on the test images.

        Args:
            method: One method alone; all if None.
        """
        test = self.predictions[self.predictions["split"] == "test"]
        if method is not None:
            test = test[test["method"] == method]
        names = series(test)
        curves: dict[str, dict[str, ReliabilityCurve]] = {}
        for finding in self.description["findings"]:
            for name, rows in test.groupby(names, sort=False):
                labels = rows[f"label/{finding}"].to_numpy()
                known = known_labels(labels)
                probabilities = rows[f"probability/{finding}"].to_numpy()[known]
                curve = reliability_curve(probabilities, labels[known], bins=10)
                curves.setdefault(finding, {})[str(name)] = curve
        return curves

    def _figures(self) -> Iterator[tuple[str, Figure]]:
        yield "scores", plot_scores(self.scores.assign(series=series(self.scores)))
        if len(self.few_label):
            curve = self.few_label.assign(series=series(self.few_label))
            yield "few_label", plot_few_label(curve)
        yield "reliability", plot_reliability(self.reliability())


def series(table: pd.DataFrame) -> "pd.Series[str]":
    """Return what made each row, in as few words as tell all apart."""
    parts = [table["encoder"].astype(str)]
    if (table.groupby("encoder")["image_size"].nunique() > 1).any():
        parts.append(table["image_size"].astype(str) + " px")
    if "method" in table:
        parts.append(table["method"].astype(str))
    telling = [part for part in parts if part.nunique() > 1] or parts[:1]
    together = telling[0]
    for part in telling[1:]:
        together = together + ", " + part
    return together

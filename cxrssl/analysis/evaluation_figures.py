"""Figures of an evaluation: scores with intervals, few-label curves, reliability."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxrssl.analysis.calibration import ReliabilityCurve
from cxrssl.errors import InputError

__all__ = ["plot_few_label", "plot_reliability", "plot_scores"]

_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#975a16", "#4a5568", "#0f8b8d")
_MARKERS = "osD^v"
_INK, _AXIS, _GRID, _BAND = "#2d3748", "#a0aec0", "#e2e8f0", "#f7fafc"
_MACRO = "macro"
_TITLES = {"auroc": "AUROC", "auprc": "AUPRC"}
_CHANCE = {"auroc": 0.5}
_BY = {"share": "by share of training images", "shots": "by images a class (shots)"}


def plot_scores(scores: pd.DataFrame, metrics: Sequence[str] = ("auroc", "auprc")) -> Figure:
    """Return a forest plot: the score of every finding with its interval, a panel a metric.

    Args:
        scores: Rows of :func:`~cxrssl.analysis.intervals.score_predictions` with a column
            ``series`` that says what made the predictions, each series in a colour of its own.
        metrics: Which metrics, from left to right.

    Raises:
        InputError: If there is no score of these metrics.
    """
    shown = scores[scores["metric"].isin(metrics)]
    if shown.empty:
        raise InputError(f"there is no score of {', '.join(metrics)} to draw")
    findings, series = list(dict.fromkeys(shown["finding"])), list(dict.fromkeys(shown["series"]))
    per_finding = 0.17 + 0.15 * len(series)
    figure = _figure(2.2 + 4.2 * len(metrics), 1.1 + per_finding * len(findings))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    spread = 0.74 / len(series)
    for axes, metric in zip(panels, metrics, strict=True):
        for number, name in enumerate(series):
            rows = shown[(shown["metric"] == metric) & (shown["series"] == name)]
            rows = rows.set_index("finding").reindex(findings)
            places = np.arange(len(findings)) + (number - (len(series) - 1) / 2) * spread
            _whiskers(axes, rows, places, name, number)
        _finish_scores(axes, metric, findings)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(series), 3),
        fontsize=8.5,
        frameon=False,
        labelcolor=_INK,
    )
    return figure


def plot_few_label(curve: pd.DataFrame, metrics: Sequence[str] = ("auroc", "auprc")) -> Figure:
    """Return the mean score over the findings against the number of labelled images.

    Lines are means over the seeds, bands reach from the smallest to the largest value.

    Args:
        curve: Rows of :func:`~cxrssl.analysis.few_label.few_label_curve` with a column ``series``
            that says whose features they are.
        metrics: Which metrics, from top to bottom.

    Raises:
        InputError: If there is no mean score of these metrics.
    """
    shown = curve[curve["metric"].isin(metrics) & (curve["finding"] == _MACRO)]
    if shown.empty:
        raise InputError(f"there is no mean score of {', '.join(metrics)} to draw")
    kinds = [kind for kind in _BY if (shown["kind"] == kind).any()]
    figure = _figure(0.6 + 4.2 * len(kinds), 0.5 + 2.7 * len(metrics))
    grid = figure.subplots(len(metrics), len(kinds), sharey="row", squeeze=False)
    for row, metric in enumerate(metrics):
        for column, kind in enumerate(kinds):
            axes = grid[row, column]
            points = shown[(shown["metric"] == metric) & (shown["kind"] == kind)]
            for number, name in enumerate(dict.fromkeys(shown["series"])):
                _band(axes, points[points["series"] == name], name, number)
            _finish(axes, f"{_TITLES.get(metric, metric)} {_BY[kind]}")
            _sizes(axes, kind, sorted(set(points["size"])))
    if shown["series"].nunique() > 1:
        grid[0, 0].legend(fontsize=8, frameon=False, labelcolor=_INK)
    return figure


def plot_reliability(curves: Mapping[str, Mapping[str, ReliabilityCurve]]) -> Figure:
    """Return reliability diagrams: the share of positives against the predicted probability.

    Dots have an area that grows with the number of images in their bin.

    Args:
        curves: Finding to series to its curve; a panel a finding.

    Raises:
        InputError: If there is no curve.
    """
    if not any(curves.values()):
        raise InputError("there is no reliability curve to draw")
    columns = min(4, math.ceil(math.sqrt(len(curves))))
    rows = -(-len(curves) // columns)
    figure = _figure(2.9 * columns, 2.9 * rows + 0.4)
    handles: dict[str, Artist] = {}
    for place, (finding, of_series) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.plot([0, 1], [0, 1], color=_AXIS, lw=1, ls=(0, (4, 2)))
        for number, (name, curve) in enumerate(of_series.items()):
            full = curve.images > 0
            colour = _COLOURS[number % len(_COLOURS)]
            x, y = curve.confidence[full], curve.accuracy[full]
            (handles[name],) = axes.plot(x, y, color=colour, lw=1.2, label=name)
            area = 60 * curve.images[full] / curve.images.sum() + 3
            axes.scatter(x, y, s=area, color=colour, alpha=0.75, linewidths=0)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        _finish(axes, finding)
    figure.supxlabel("predicted probability", fontsize=9, color=_INK)
    figure.supylabel("share of positives", fontsize=9, color=_INK)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=min(len(handles), 3),
        fontsize=8.5,
        frameon=False,
        labelcolor=_INK,
    )
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _whiskers(axes: Axes, rows: pd.DataFrame, places: np.ndarray, name: str, number: int) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number // len(_COLOURS) % 5]
    axes.hlines(places, rows["low"], rows["high"], color=colour, lw=1.6, alpha=0.6)
    axes.plot(rows["value"], places, marker, color=colour, ms=4.5, label=name, clip_on=False)


def _finish_scores(axes: Axes, metric: str, findings: Sequence[str]) -> None:
    for place in range(0, len(findings), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=_BAND, zorder=0, lw=0)
    if metric in _CHANCE:
        axes.axvline(_CHANCE[metric], color=_AXIS, lw=1, ls=(0, (4, 2)), zorder=0.5)
    axes.set_yticks(range(len(findings)), findings)
    axes.set_ylim(len(findings) - 0.5, -0.5)
    _finish(axes, _TITLES.get(metric, metric))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=_GRID, linewidth=0.7)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == _MACRO else "normal")


def _band(axes: Axes, points: pd.DataFrame, name: str, number: int) -> None:
    colour = _COLOURS[number % len(_COLOURS)]
    seeds = points.groupby("size")["value"].agg(["min", "mean", "max"])
    axes.fill_between(seeds.index, seeds["min"], seeds["max"], color=colour, alpha=0.18, lw=0)
    axes.plot(seeds.index, seeds["mean"], color=colour, lw=1.6, marker="o", ms=3.5, label=name)


def _sizes(axes: Axes, kind: str, sizes: Sequence[float]) -> None:
    """Put a tick at every size, on a logarithmic axis."""
    axes.set_xscale("log")
    axes.set_xticks(sizes)
    axes.minorticks_off()
    if kind == "share":
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    else:
        axes.set_xticklabels([f"{size:g}" for size in sizes])
    axes.yaxis.set_major_locator(MaxNLocator(6))


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left", color=_INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_AXIS)
    axes.tick_params(labelsize=8, colors=_INK, color=_AXIS)
    axes.grid(axis="y", color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)

"""Figures of an evaluation: scores with intervals, few-label curves, reliability."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from cxrssl.analysis.axes import AXIS, BAND, COLOURS, GRID, INK, finish, own_axes
from cxrssl.analysis.calibration import ReliabilityCurve
from cxrssl.errors import InputError

__all__ = [
    "plot_differences",
    "plot_few_label",
    "plot_few_label_curve",
    "plot_reliability",
    "plot_reliability_curve",
    "plot_score",
    "plot_scores",
]

_MARKERS = "osD^v"
_MACRO = "macro"
_TITLES = {"auroc": "AUROC", "auprc": "AUPRC"}
_CHANCE = {"auroc": 0.5}
_Kind = Literal["share", "shots"]
_KINDS: tuple[_Kind, ...] = ("share", "shots")
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
    shown = _shown(scores, metrics)
    height = _score_height(shown)
    figure = _figure(2.2 + 4.2 * len(metrics), height)
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _draw_score(axes, shown, metric)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(shown["series"].nunique(), 3),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
    )
    return figure


def plot_score(scores: pd.DataFrame, metric: str = "auroc", ax: Axes | None = None) -> Axes:
    """Draw one panel of :func:`plot_scores` and return its axes.

    Args:
        scores: As there.
        metric: Which metric.
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If there is no score of this metric.
    """
    shown = _shown(scores, [metric])
    axes = own_axes(ax, 5.4, _score_height(shown))
    _draw_score(axes, shown, metric)
    if shown["series"].nunique() > 1:
        # Below the axes, where it hides no whisker.
        axes.legend(
            fontsize=8,
            frameon=False,
            labelcolor=INK,
            ncols=min(shown["series"].nunique(), 3),
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=2.4,
        )
    return axes


def plot_differences(
    comparison: pd.DataFrame, metric: str = "auroc", ax: Axes | None = None
) -> Axes:
    """Draw the paired difference of every finding with its interval, and return the axes.

    Args:
        comparison: Rows of :func:`~cxrssl.analysis.comparison.compare_predictions`.
        metric: Which metric.
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If there is no difference in this metric.
    """
    shown = _shown(comparison, [metric]).assign(series="", value=lambda of: of["difference"])
    axes = own_axes(ax, 5.4, _score_height(shown))
    places = np.arange(len(shown))
    _whiskers(axes, shown, places, "", 0)
    title = f"Difference in {_TITLES.get(metric, metric)}"
    _finish_scores(axes, title, list(shown["finding"]))
    axes.axvline(0, color=AXIS, lw=1, ls=(0, (4, 2)), zorder=0.5)
    return axes


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
    kinds = [kind for kind in _KINDS if (shown["kind"] == kind).any()]
    figure = _figure(0.6 + 4.2 * len(kinds), 0.5 + 2.7 * len(metrics))
    grid = figure.subplots(len(metrics), len(kinds), sharey="row", squeeze=False)
    for row, metric in enumerate(metrics):
        for column, kind in enumerate(kinds):
            plot_few_label_curve(shown, metric, kind, grid[row, column])
            if (row, column) != (0, 0) and (legend := grid[row, column].get_legend()):
                legend.remove()
    return figure


def plot_few_label_curve(
    curve: pd.DataFrame,
    metric: str = "auroc",
    kind: _Kind = "share",
    ax: Axes | None = None,
) -> Axes:
    """Draw one panel of :func:`plot_few_label` and return its axes.

    Args:
        curve: As there.
        metric: Which metric.
        kind: By ``share`` of the training images or by ``shots``, images a class.
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If there is no mean score of this metric and kind.
    """
    points = curve[
        (curve["metric"] == metric) & (curve["kind"] == kind) & (curve["finding"] == _MACRO)
    ]
    if points.empty:
        raise InputError(f"there is no mean score of {metric} by {kind} to draw")
    axes = own_axes(ax)
    for number, name in enumerate(dict.fromkeys(curve["series"])):
        _band(axes, points[points["series"] == name], name, number)
    finish(axes, f"{_TITLES.get(metric, metric)} {_BY[kind]}")
    _sizes(axes, kind, sorted(set(points["size"])))
    if curve["series"].nunique() > 1:
        axes.legend(fontsize=8, frameon=False, labelcolor=INK)
    return axes


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
        _draw_reliability(axes, of_series, finding)
        lines, names = axes.get_legend_handles_labels()
        handles |= dict(zip(names, lines, strict=True))
    figure.supxlabel("predicted probability", fontsize=9, color=INK)
    figure.supylabel("share of positives", fontsize=9, color=INK)
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside upper center",
        ncols=min(len(handles), 3),
        fontsize=8.5,
        frameon=False,
        labelcolor=INK,
    )
    return figure


def plot_reliability_curve(
    curves: Mapping[str, ReliabilityCurve], title: str = "", ax: Axes | None = None
) -> Axes:
    """Draw the reliability diagram of one finding and return its axes.

    Args:
        curves: Series to its curve.
        title: Above the axes, such as the finding.
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If there is no curve.
    """
    if not curves:
        raise InputError("there is no reliability curve to draw")
    axes = own_axes(ax, 3.0, 3.0)
    _draw_reliability(axes, curves, title)
    axes.set_xlabel("predicted probability", fontsize=8, color=INK)
    axes.set_ylabel("share of positives", fontsize=8, color=INK)
    if len(curves) > 1:
        axes.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="upper left")
    return axes


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _shown(scores: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    shown = scores[scores["metric"].isin(metrics)]
    if shown.empty:
        raise InputError(f"there is no score of {', '.join(metrics)} to draw")
    return shown


def _score_height(shown: pd.DataFrame) -> float:
    """Return the height in inches that all findings and series need."""
    per_finding = 0.17 + 0.15 * shown["series"].nunique()
    return 1.1 + per_finding * shown["finding"].nunique()


def _draw_score(axes: Axes, shown: pd.DataFrame, metric: str) -> None:
    findings, series = list(dict.fromkeys(shown["finding"])), list(dict.fromkeys(shown["series"]))
    spread = 0.74 / len(series)
    for number, name in enumerate(series):
        rows = shown[(shown["metric"] == metric) & (shown["series"] == name)]
        rows = rows.set_index("finding").reindex(findings)
        places = np.arange(len(findings)) + (number - (len(series) - 1) / 2) * spread
        _whiskers(axes, rows, places, name, number)
    _finish_scores(axes, metric, findings)


def _draw_reliability(axes: Axes, curves: Mapping[str, ReliabilityCurve], title: str) -> None:
    axes.plot([0, 1], [0, 1], color=AXIS, lw=1, ls=(0, (4, 2)))
    for number, (name, curve) in enumerate(curves.items()):
        full = curve.images > 0
        colour = COLOURS[number % len(COLOURS)]
        x, y = curve.confidence[full], curve.accuracy[full]
        axes.plot(x, y, color=colour, lw=1.2, label=name)
        area = 60 * curve.images[full] / curve.images.sum() + 3
        axes.scatter(x, y, s=area, color=colour, alpha=0.75, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    finish(axes, title)


def _whiskers(axes: Axes, rows: pd.DataFrame, places: np.ndarray, name: str, number: int) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], _MARKERS[number // len(COLOURS) % 5]
    axes.hlines(places, rows["low"], rows["high"], color=colour, lw=1.6, alpha=0.6)
    axes.plot(rows["value"], places, marker, color=colour, ms=4.5, label=name, clip_on=False)


def _finish_scores(axes: Axes, metric: str, findings: Sequence[str]) -> None:
    for place in range(0, len(findings), 2):
        axes.axhspan(place - 0.5, place + 0.5, color=BAND, zorder=0, lw=0)
    if metric in _CHANCE:
        axes.axvline(_CHANCE[metric], color=AXIS, lw=1, ls=(0, (4, 2)), zorder=0.5)
    axes.set_yticks(range(len(findings)), findings)
    axes.set_ylim(len(findings) - 0.5, -0.5)
    finish(axes, _TITLES.get(metric, metric))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() == _MACRO else "normal")


def _band(axes: Axes, points: pd.DataFrame, name: str, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
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

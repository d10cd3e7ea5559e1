"""The three panels of measures in the figure of a world model."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cxrssl.analysis.axes import FAINT, INK, own_axes
from cxrssl.analysis.axes import finish as finish_axes
from cxrssl.analysis.world_domain import DOMAIN_CONDITIONS, DomainSensitivity
from cxrssl.analysis.world_layout import PLACES, LayoutAwareness
from cxrssl.analysis.world_local import LocalStructure
from cxrssl.analysis.world_scores import FEWEST_IMAGES, Estimates

__all__ = ["plot_domain", "plot_layout", "plot_retrieval"]

_TOLD, _MISTOLD, _OTHER, _LOCAL, _PLACE = "#2b6cb0", "#dd6b20", "#a0aec0", "#2f855a", "#805ad5"
_LAYOUT = {"offset": _TOLD, "other offset": _MISTOLD, "other image": _OTHER}
_CROP_PLACES = ("inside", "outside")
_SIZE = (5.2, 4.0)
_DASHES, _DOTS = (0, (4, 2)), (0, (1, 1.5))


def plot_domain(domain: DomainSensitivity | None, ax: Axes | None = None) -> Axes:
    """Draw recall with the true action and two others as bars, and return the axes.

    Args:
        domain: What was measured, if it could be.
        ax: Axes to draw on; those of a new figure if None.
    """
    axes = own_axes(ax, *_SIZE)
    if domain is None:
        axes.text(
            *(0.5, 0.5, "not measured:\nthe views change no grey values"),
            transform=axes.transAxes,
            ha="center",
            fontsize=9,
            color=FAINT,
        )
        axes.set_axis_off()
        return axes
    width = 0.27
    centres = np.arange(len(domain.ranks), dtype=np.float64)
    for number, (name, colour) in enumerate(
        zip(DOMAIN_CONDITIONS, (_TOLD, _MISTOLD, _OTHER), strict=True)
    ):
        _bars(axes, centres + (number - 1) * width, domain.recall[name], width, colour, name)
    for centre, chance in zip(centres, domain.chance, strict=True):
        _dash(axes, centre, chance, 1.5 * width, "_" if centre else "chance")
    axes.set_xticks(centres, [f"recall@{k}" for k in domain.ranks])
    axes.set_ylabel("recall", fontsize=9, color=INK)
    _finish(axes, "a", f"Undo the distortion: 1 of {domain.candidates} versions")
    _as_share(axes)
    return axes


def plot_layout(layout: LayoutAwareness, ax: Axes | None = None) -> Axes:
    """Draw the error by distance to the crop that is seen as curves, and return the axes.

    Args:
        layout: What was measured.
        ax: Axes to draw on; those of a new figure if None.
    """
    axes = own_axes(ax, *_SIZE)
    binned = layout.by_distance
    drawn = binned.images >= min(FEWEST_IMAGES, layout.images)
    centres = np.array([(low + high) / 2 for low, high in binned.bounds()])[drawn]
    for name, colour in _LAYOUT.items():
        error = binned.error[name].at(drawn)
        # Without intervals, where there are few images, this draws nothing.
        axes.fill_between(centres, error.low, error.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(centres, error.value, color=colour, marker="o", ms=3.5, lw=1.6, label=name)
    for name, values, colour, style in (
        ("position alone", binned.error["position alone"].value, _PLACE, _DASHES),
        ("mean token", binned.mean_token, INK, _DOTS),
    ):
        axes.plot(centres, values[drawn], color=colour, ls=style, lw=1.2, label=name)
    axes.margins(x=0.03)
    axes.axvspan(axes.get_xlim()[0], 0, color="#edf2f7", zorder=0, lw=0)
    axes.set_xlim(left=axes.get_xlim()[0])
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("patches beyond the border of the crop that is seen", fontsize=9, color=INK)
    axes.set_ylabel("mean squared error", fontsize=9, color=INK)
    axes.text(
        0.02, 0.03, "inside", transform=axes.transAxes, fontsize=8, color=FAINT, style="italic"
    )
    _finish(axes, "b", "Predict another crop")
    return axes


def plot_retrieval(layout: LayoutAwareness, local: LocalStructure, ax: Axes | None = None) -> Axes:
    """Draw how often the right patch is found, in the same image and in another crop.

    Args:
        layout: What was measured.
        local: What was measured.
        ax: Axes to draw on, which are returned; those of a new figure if None.
    """
    axes = own_axes(ax, *_SIZE)
    width = 0.28
    groups: list[tuple[Mapping[str, Estimates], NDArray[np.float64], Mapping[str, str]]] = [
        (local.scores, local.chance, {"masked": _LOCAL, "other image": _OTHER})
    ]
    for place in _CROP_PLACES:
        number = PLACES.index(place)
        there = {name: each.at(number) for name, each in layout.scores.items()}
        groups.append((there, layout.chance[number], _LAYOUT))
    labelled: set[str] = set()
    for centre, (scores, chance, colours) in enumerate(groups):
        half = len(colours) * width / 2
        for number, (name, colour) in enumerate(colours.items()):
            left = centre + (number - (len(colours) - 1) / 2) * width
            _retrieval_bar(axes, left, width, scores[name], colour, _once(name, labelled))
        mean = scores["position alone"].value[0]
        _dash(axes, centre, mean, half, _once("position alone", labelled), _PLACE)
        _dash(axes, centre, chance[0], half, _once("chance", labelled))
        _dash(axes, centre, chance[1], half, colour=FAINT)
    gains = [local.scores["masked minus other image"]]
    gains += [layout.scores["offset minus other image"].at(PLACES.index(p)) for p in _CROP_PLACES]
    where = ["masked part of\nsame image", *(f"other crop,\n{place}" for place in _CROP_PLACES)]
    labels = [f"{name}\n{_points(gain)}" for name, gain in zip(where, gains, strict=True)]
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(
        "third line: gain in top-1 over other image, in points", fontsize=8, color=FAINT
    )
    axes.set_ylabel("accuracy, top-1 (top-5 pale)", fontsize=9, color=INK)
    _finish(axes, "c", "Find the right patch")
    _as_share(axes)
    return axes


def _points(gain: Estimates) -> str:
    """Return a difference of top-1 accuracies, with its interval if there is one, in points."""
    value, low, high = (100 * numbers[0] for numbers in (gain.value, gain.low, gain.high))
    if np.isnan(value):
        return ""
    return f"{value:+.1f}" + ("" if np.isnan(low) else f" ({low:.1f} to {high:.1f})")


def _once(name: str, labelled: set[str]) -> str:
    """Return the name for the legend the first time only."""
    if name in labelled:
        return "_"
    labelled.add(name)
    return name


def _retrieval_bar(
    axes: Axes, place: float, width: float, found: Estimates, colour: str, label: str
) -> None:
    """Draw the top-1 accuracy before the top-5 accuracy, if there is any."""
    if not np.isnan(found.value[0]):
        axes.bar(place, found.value[1], 0.9 * width, color=colour, alpha=0.28, lw=0)
        _bars(axes, np.array([place]), found.at(slice(1)), width, colour, label)


def _bars(
    axes: Axes,
    places: NDArray[np.float64],
    found: Estimates,
    width: float,
    colour: str,
    label: str,
) -> None:
    """Draw bars with whiskers and their values above."""
    axes.bar(places, found.value, 0.9 * width, color=colour, label=label, lw=0)
    below, above = found.value - found.low, found.high - found.value
    axes.errorbar(
        places, found.value, np.maximum([below, above], 0), fmt="none", ecolor=INK, elinewidth=0.9
    )
    tops = np.fmax(found.value, found.high)  # there may be no interval
    for place, value, top in zip(places, found.value, tops, strict=True):
        axes.annotate(
            f"{100 * value:.{int(value < 0.1)}f}",
            (place, top),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=INK,
        )


def _dash(
    axes: Axes, place: float, height: float, half: float, label: str = "_", colour: str = INK
) -> None:
    axes.hlines(
        height,
        place - half,
        place + half,
        color=colour,
        ls=(0, (3, 2)),
        lw=1.3,
        label=label,
        zorder=4,
    )


def _as_share(axes: Axes) -> None:
    """Leave room for the legend; a share above 1 has no tick."""
    top = 1.4 * min(1.0, axes.get_ylim()[1])
    axes.set_ylim(0, top)
    ticks = np.asarray(MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, top))
    axes.set_yticks(ticks[(ticks >= 0) & (ticks <= min(1.0, top))])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _finish(axes: Axes, letter: str, title: str) -> None:
    finish_axes(axes, f"{letter}   {title}")
    entries = list(zip(*axes.get_legend_handles_labels(), strict=True))
    entries.sort(key=lambda entry: isinstance(entry[0], LineCollection))  # dashes last
    axes.legend(
        *zip(*entries, strict=True),
        fontsize=8,
        frameon=False,
        labelcolor=INK,
        handlelength=1.4,
        ncols=2,
        loc="upper left",
    )

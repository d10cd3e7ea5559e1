"""One figure of what a world model knows: actions, layout and local structure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cxrssl.analysis.world_domain import DomainSensitivity
from cxrssl.analysis.world_layout import PLACES, LayoutAwareness
from cxrssl.analysis.world_local import FillIn, LocalStructure
from cxrssl.analysis.world_scores import Estimates

__all__ = ["plot_world"]

_INK, _FAINT, _AXIS = "#2d3748", "#718096", "#a0aec0"
_TOLD, _UNTOLD, _OTHER, _LOCAL = "#2b6cb0", "#dd6b20", "#a0aec0", "#2f855a"
_HIDDEN, _ASKED = (0.86, 0.88, 0.91), (0.97, 0.80, 0.64)
_FEWEST_PATCHES = 20
_EXAMPLES = 4
_PANELS_HIGH, _ROW_HIGH = 3.7, 2.2


def plot_world(domain: DomainSensitivity, layout: LayoutAwareness, local: LocalStructure) -> Figure:
    """Return one figure of the three measures.

    Above: recall of the right version of an image with the true action, without one and with
    another; error of predicted patches against their distance to what is seen; accuracy of finding
    the right patch. Whiskers and bands are 95 % intervals, dashes are chance. Below: up to four
    images whose masked part is filled in from other images.
    """
    examples = local.examples[:_EXAMPLES]
    rows = -(-len(examples) // 2)
    figure = Figure(
        figsize=(12.6, _PANELS_HIGH + _ROW_HIGH * rows + 0.5),
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.06, wspace=0, hspace=0.01),
    )
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"What the world model knows ({domain.images} radiographs)",
        fontsize=13,
        color=_INK,
        fontweight="bold",
    )
    parts = figure.subfigures(1 + bool(examples), 1, height_ratios=_heights(rows), squeeze=False)
    first, second, third = parts[0, 0].subplots(1, 3, width_ratios=[1, 1.15, 1.15])
    _plot_domain(first, domain)
    _plot_layout(second, layout)
    _plot_retrieval(third, layout, local)
    if examples:
        _plot_examples(parts[1, 0], examples)
    return figure


def _heights(rows: int) -> list[float]:
    return [_PANELS_HIGH, _ROW_HIGH * rows] if rows else [_PANELS_HIGH]


def _plot_domain(axes: Axes, domain: DomainSensitivity) -> None:
    width = 0.27
    centres = np.arange(len(domain.ranks), dtype=np.float64)
    colours = (_TOLD, _UNTOLD, _OTHER)
    for number, (name, recall) in enumerate(domain.recall.items()):
        places = centres + (number - 1) * width
        _bars(axes, places, recall, width, colours[number], name)
    for centre, chance in zip(centres, domain.chance, strict=True):
        _dash(axes, centre, chance, 1.5 * width, "_" if centre else "chance")
    axes.set_xticks(centres, [f"recall@{k}" for k in domain.ranks])
    axes.set_ylabel("recall", fontsize=9, color=_INK)
    _finish(axes, "a", f"Undo the distortion: 1 of {domain.candidates} versions")
    _as_share(axes)


def _plot_layout(axes: Axes, layout: LayoutAwareness) -> None:
    drawn = layout.patches_by_distance >= _FEWEST_PATCHES
    centres = ((layout.distance_edges[:-1] + layout.distance_edges[1:]) / 2)[drawn]
    for name, colour in zip(layout.error_by_distance, (_TOLD, _UNTOLD), strict=True):
        error = layout.error_by_distance[name]
        axes.fill_between(
            centres, error.low[drawn], error.high[drawn], color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(centres, error.value[drawn], color=colour, marker="o", ms=3.5, lw=1.6, label=name)
    axes.axhline(layout.constant_error, color=_INK, ls=(0, (4, 3)), lw=1, label="mean token")
    axes.margins(x=0.03)
    axes.axvspan(axes.get_xlim()[0], 0, color="#edf2f7", zorder=0, lw=0)
    axes.set_xlim(left=axes.get_xlim()[0])
    axes.set_ylim(0, 1.32 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("patches beyond the border of the crop that is seen", fontsize=9, color=_INK)
    axes.set_ylabel("mean squared error", fontsize=9, color=_INK)
    axes.text(
        0.02, 0.03, "inside", transform=axes.transAxes, fontsize=8, color=_FAINT, style="italic"
    )
    _finish(axes, "b", "Predict another crop")


def _plot_retrieval(axes: Axes, layout: LayoutAwareness, local: LocalStructure) -> None:
    width = 0.36
    _retrieval_bar(axes, 0, width, local.retrieval, _LOCAL, "masked patch")
    _accuracy_chance(axes, 0, width / 2, local.chance, "chance")
    for centre, place in enumerate(("inside", "outside"), start=1):
        number = PLACES.index(place)
        _accuracy_chance(axes, centre, width, layout.retrieval_chance[number])
        for side, (name, found) in enumerate(layout.retrieval.items()):
            left, colour = centre + (side - 0.5) * width, (_TOLD, _UNTOLD)[side]
            label = name if centre == 1 else "_"
            _retrieval_bar(axes, left, width, found.at(number), colour, label)
    axes.set_xticks(
        [0, 1, 2], ["masked part of\nsame image", "other crop,\ninside", "other crop,\noutside"]
    )
    axes.set_ylabel("accuracy, top-1 (top-5 pale)", fontsize=9, color=_INK)
    _finish(axes, "c", "Find the right patch")
    _as_share(axes)


def _retrieval_bar(
    axes: Axes, place: float, width: float, found: Estimates, colour: str, label: str
) -> None:
    """Draw the top-1 accuracy before the top-5 accuracy, if there is any."""
    if not np.isnan(found.value[0]):
        axes.bar(place, found.value[1], 0.9 * width, color=colour, alpha=0.28, lw=0)
        top = Estimates(*(numbers[:1] for numbers in found))
        _bars(axes, np.array([place]), top, width, colour, label)


def _accuracy_chance(
    axes: Axes, place: float, half: float, chance: NDArray[np.float64], label: str = "_"
) -> None:
    _dash(axes, place, chance[0], half, label)
    _dash(axes, place, chance[1], half)


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
        places, found.value, np.maximum([below, above], 0), fmt="none", ecolor=_INK, elinewidth=0.9
    )
    for place, value, high in zip(places, found.value, found.high, strict=True):
        axes.annotate(
            f"{100 * value:.{int(value < 0.1)}f}",
            (place, max(value, high)),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=_INK,
        )


def _dash(axes: Axes, place: float, height: float, half: float, label: str = "_") -> None:
    axes.hlines(
        height,
        place - half,
        place + half,
        color=_INK,
        ls=(0, (3, 2)),
        lw=1.1,
        label=label,
        zorder=4,
    )


def _as_share(axes: Axes) -> None:
    """Leave room for the legend; a share above 1 has no tick."""
    top = 1.3 * min(1.0, axes.get_ylim()[1])
    axes.set_ylim(0, top)
    ticks = np.asarray(MaxNLocator(5).tick_values(0, top))
    axes.set_yticks(ticks[(ticks >= 0) & (ticks <= min(1.0, top))])
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _finish(axes: Axes, letter: str, title: str) -> None:
    axes.set_title(f"{letter}   {title}", fontsize=10, loc="left", color=_INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_AXIS)
    axes.tick_params(labelsize=8, colors=_INK, color=_AXIS)
    axes.grid(axis="y", color="#e2e8f0", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(
        fontsize=8, frameon=False, labelcolor=_INK, handlelength=1.4, ncols=2, loc="upper left"
    )


def _plot_examples(figure: SubFigure, examples: Sequence[FillIn]) -> None:
    """Draw original, what is seen, and what is filled in, two images a row."""
    figure.suptitle(
        "d   Masked patches, filled with those of other radiographs that are nearest to the "
        "prediction",
        fontsize=10,
        x=0.008,
        ha="left",
        color=_INK,
        fontweight="bold",
    )
    rows = -(-len(examples) // 2)
    # The narrow column in the middle keeps the two images of a row apart.
    grid = figure.subplots(rows, 7, squeeze=False, width_ratios=[1, 1, 1, 0.12, 1, 1, 1])
    for axes in grid.flat:
        axes.set_axis_off()
    titles = ("original", "seen", "filled in")
    for number, example in enumerate(examples):
        row, first = number // 2, 4 * (number % 2)
        for column, shown in enumerate(_panels(example)):
            axes = grid[row, first + column]
            axes.imshow(shown, interpolation="antialiased")
            if row == 0:
                axes.set_title(titles[column], fontsize=9, color=_INK)


def _panels(example: FillIn) -> list[NDArray[np.float64]]:
    """Return three RGB images (S, S, 3) of an example; what is asked for is tinted."""
    size = len(example.image) // len(example.seen)
    seen, masked = (
        grid.repeat(size, 0).repeat(size, 1)[..., None] for grid in (example.seen, example.masked)
    )
    original, filled = (
        np.repeat(grey[..., None] / 255, 3, axis=-1) for grey in (example.image, example.filled)
    )
    shown = np.where(seen, original, np.where(masked, _ASKED, _HIDDEN))
    return [original, shown, np.where(masked, filled, shown)]

"""One figure of what a world model knows: actions, layout and local structure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from cxrssl.analysis.axes import INK
from cxrssl.analysis.world_domain import DomainSensitivity
from cxrssl.analysis.world_layout import LayoutAwareness
from cxrssl.analysis.world_local import FillIn, LocalStructure
from cxrssl.analysis.world_panels import plot_domain, plot_layout, plot_retrieval

__all__ = ["fill_in_panels", "plot_world"]

_HIDDEN, _ASKED = (0.86, 0.88, 0.91), (0.97, 0.80, 0.64)
_EXAMPLES = 4
_PANELS_HIGH, _ROW_HIGH = 4.0, 2.2


def plot_world(
    domain: DomainSensitivity | None, layout: LayoutAwareness, local: LocalStructure
) -> Figure:
    """Return one figure of the three measures.

    Above: recall of the right version of an image with the true action, with that of doing nothing
    and with another one; error of predicted patches against their distance to what is seen;
    accuracy of finding the right patch. Whiskers and bands are 95 % intervals. The last two are
    compared with predictions from another image, and with the mean token of the place. Below: up to
    four images whose masked part is filled in from other images.

    Args:
        domain: None where it could not be measured.
        layout: What was measured.
        local: What was measured.
    """
    examples = local.examples[:_EXAMPLES]
    rows = -(-len(examples) // 2)
    figure = Figure(
        figsize=(13.2, _PANELS_HIGH + _ROW_HIGH * rows + 0.5),
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.06, wspace=0, hspace=0.01),
    )
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"What the world model knows ({local.images} radiographs)",
        fontsize=13,
        color=INK,
        fontweight="bold",
    )
    parts = figure.subfigures(1 + bool(examples), 1, height_ratios=_heights(rows), squeeze=False)
    first, second, third = parts[0, 0].subplots(1, 3, width_ratios=[1, 1.15, 1.3])
    plot_domain(domain, first)
    plot_layout(layout, second)
    plot_retrieval(layout, local, third)
    if examples:
        _plot_examples(parts[1, 0], examples)
    return figure


def _heights(rows: int) -> list[float]:
    return [_PANELS_HIGH, _ROW_HIGH * rows] if rows else [_PANELS_HIGH]


def _plot_examples(figure: SubFigure, examples: Sequence[FillIn]) -> None:
    """Draw original, what is seen, and what is filled in, two images a row."""
    figure.suptitle(
        "d   Masked patches, filled with those of other radiographs that are nearest to the "
        "prediction",
        fontsize=10,
        x=0.008,
        ha="left",
        color=INK,
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
        for column, shown in enumerate(fill_in_panels(example)):
            axes = grid[row, first + column]
            axes.imshow(shown, interpolation="antialiased")
            if row == 0:
                axes.set_title(titles[column], fontsize=9, color=INK)


def fill_in_panels(example: FillIn) -> list[NDArray[np.float64]]:
    """Return an example as three RGB images (S, S, 3): original, what is seen, and filled in.

    What is asked for is tinted in the second.
    """
    size = len(example.image) // len(example.seen)
    seen, masked = (
        grid.repeat(size, 0).repeat(size, 1)[..., None] for grid in (example.seen, example.masked)
    )
    original, filled = (
        np.repeat(grey[..., None] / 255, 3, axis=-1) for grey in (example.image, example.filled)
    )
    shown = np.where(seen, original, np.where(masked, _ASKED, _HIDDEN))
    return [original, shown, np.where(masked, filled, shown)]

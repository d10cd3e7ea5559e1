"""What all figures share: their colours, their look, and axes for callers who have none."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["AXIS", "BAND", "COLOURS", "FAINT", "GRID", "INK", "finish", "own_axes", "show_image"]

COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#975a16", "#4a5568", "#0f8b8d")
INK, FAINT, AXIS, GRID, BAND = "#2d3748", "#718096", "#a0aec0", "#e2e8f0", "#f7fafc"


def own_axes(ax: Axes | None, width: float = 4.2, height: float = 2.9) -> Axes:
    """Return the axes given, or those of a new figure, which ``ax.figure`` is.

    Args:
        ax: Axes to draw on, if any.
        width: Of the new figure, in inches.
        height: Of the new figure, in inches.
    """
    if ax is not None:
        return ax
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def show_image(axes: Axes, image: NDArray[np.floating]) -> None:
    """Show a radiograph (H, W) in [0, 1] without ticks and frame."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def finish(axes: Axes, title: str) -> None:
    """Give axes their title and the look of all others."""
    axes.set_title(title, fontsize=10, loc="left", color=INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.tick_params(labelsize=8, colors=INK, color=AXIS)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)

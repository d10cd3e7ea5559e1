"""Figures of where a classifier looks for each finding."""

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from cxrssl.analysis.axes import INK, own_axes
from cxrssl.errors import InputError

__all__ = ["plot_attention", "plot_attention_map"]

_PRESENT = "#2f855a"
_SIDE = 2.0
_POWER = 0.5
"""Exponent of the maps, with which CheXFound shows them; faint attention becomes visible."""


def plot_attention(
    images: NDArray[np.floating],
    attention: NDArray[np.floating],
    names: Sequence[str],
    *,
    labels: NDArray[np.floating],
    probabilities: NDArray[np.floating],
) -> Figure:
    """Return radiographs, a row each, beside the attention of each finding over them.

    Maps are averaged over heads, interpolated, raised to the power 0.5 and scaled to the largest
    value of each. The title of a map says the probability, and in green that the finding is there.

    Args:
        images: (n, H, W) in [0, 1].
        attention: (n, heads, F, h, w).
        names: The F findings.
        labels: (n, F), 1 where a finding is known to be there.
        probabilities: (n, F).

    Raises:
        InputError: If there is no image, or the shapes do not belong together.
    """
    n, findings = len(images), len(names)
    fits = attention.ndim == 5 and attention.shape[:3:2] == (n, findings)
    if n == 0 or not fits or not labels.shape == probabilities.shape == (n, findings):
        raise InputError(
            f"attention must be (images, heads, findings, h, w) of {n} images and {findings} "
            f"findings, got {attention.shape}, with labels {labels.shape} and probabilities "
            f"{probabilities.shape} of (images, findings)"
        )
    height, width = images.shape[1:]
    figure = Figure(
        figsize=((1 + findings) * _SIDE, n * (_SIDE * height / width + 0.25) + 0.2),
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0),
    )
    FigureCanvasAgg(figure)
    for row, image in enumerate(images):
        axes = figure.add_subplot(n, 1 + findings, row * (1 + findings) + 1)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        for column, name in enumerate(names):
            axes = figure.add_subplot(n, 1 + findings, row * (1 + findings) + column + 2)
            plot_attention_map(image, attention[row, :, column].mean(0), axes)
            there = labels[row, column] == 1
            axes.set_title(
                f"{name} {probabilities[row, column]:.2f}",
                fontsize=7.5,
                color=_PRESENT if there else INK,
                fontweight="bold" if there else "normal",
            )
    return figure


def plot_attention_map(
    image: NDArray[np.floating], attention: NDArray[np.floating], ax: Axes | None = None
) -> Axes:
    """Show attention over a radiograph, as :func:`plot_attention` does, and return the axes.

    Args:
        image: (H, W) in [0, 1].
        attention: Weights of patches (h, w).
        ax: Axes to draw on; those of a new figure if None.
    """
    axes = own_axes(ax, _SIDE, _SIDE * image.shape[0] / image.shape[1])
    height, width = image.shape
    heat = cv2.resize(attention.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    axes.imshow(np.clip(heat, 0, 1) ** _POWER, cmap="inferno", alpha=0.6, vmin=0)
    axes.set_axis_off()
    return axes

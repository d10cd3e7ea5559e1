"""Figure of masks over radiographs: what is there and what was predicted."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cxrssl.analysis.axes import INK, own_axes, show_image
from cxrssl.analysis.dice import dice_scores
from cxrssl.errors import InputError

__all__ = ["plot_overlay", "plot_overlays"]

_TRUTH, _PREDICTION, _UNKNOWN = "#22c55e", "#ef4444", "#94a3b8"
_FILL = 0.35
_WIDTHS = (1.6, 0.9)  # of outlines, truth and prediction
_DASHES = (0, (4, 2))
_SIDE = 2.3  # inches


def plot_overlays(
    images: NDArray[np.floating],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.bool_],
    names: Sequence[str],
    captions: Sequence[str] | None = None,
) -> Figure:
    """Return radiographs with the outlines of true (green) and predicted (red) masks.

    A row an image: first the bare radiograph, then a column a structure, with its Dice score. False
    negatives are filled green and false positives red; where both agree, only outlines are drawn,
    the thin dashed red one on the broad green one. Unknown pixels are grey.

    Args:
        images: (n, H, W) in [0, 1].
        truth: (n, K, H, W), 1 inside, 0 outside, 255 unknown.
        prediction: (n, K, H, W).
        names: The K structures.
        captions: One an image, written beside its row.

    Raises:
        InputError: If the shapes do not belong together, or there is nothing to draw.
    """
    n, n_structures = truth.shape[:2]
    shape = (n, *truth.shape[2:])
    fits = images.shape == shape and truth.shape == prediction.shape and len(names) == n_structures
    if not fits or min(truth.shape) < 1 or (captions is not None and len(captions) != n):
        raise InputError(
            f"images {images.shape}, truth {truth.shape} and prediction {prediction.shape} must be "
            f"(n, H, W) and twice (n, K, H, W), none empty, with K names, got {list(names)}, and n "
            f"captions or none, got {captions}"
        )
    scores = dice_scores(prediction, truth)
    height, width = shape[1:]
    figure = Figure(
        figsize=((n_structures + 1) * _SIDE, n * _SIDE * height / width + 0.6),
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.05, wspace=0, hspace=0),
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(n, n_structures + 1, squeeze=False)
    for row, image in enumerate(images):
        for axes in panels[row]:
            show_image(axes, image)
        if captions is not None:
            panels[row, 0].set_ylabel(captions[row], fontsize=8, color=INK)
        for column, axes in enumerate(panels[row, 1:]):
            _draw(axes, truth[row, column], prediction[row, column], scores[row, column])
    for axes, name in zip(panels[0], ["radiograph", *names], strict=True):
        axes.set_title(name, fontsize=9, color=INK)
    _add_legend(figure, unknown=bool((truth == 255).any()))
    return figure


def plot_overlay(
    image: NDArray[np.floating],
    truth: NDArray[np.uint8],
    prediction: NDArray[np.bool_],
    ax: Axes | None = None,
) -> Axes:
    """Show one structure over a radiograph, as :func:`plot_overlays` does, and return the axes.

    Args:
        image: (H, W) in [0, 1].
        truth: (H, W), 1 inside, 0 outside, 255 unknown.
        prediction: (H, W).
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If the shapes differ, or as :func:`~cxrssl.analysis.dice.dice_scores`.
    """
    (score,) = dice_scores(prediction[None, None], truth[None, None])[0]
    if image.shape != truth.shape:
        raise InputError(f"image {image.shape} and masks {truth.shape} must be of one size (H, W)")
    axes = own_axes(ax, _SIDE, _SIDE * image.shape[0] / image.shape[1])
    show_image(axes, image)
    _draw(axes, truth, prediction, score)
    return axes


def _draw(
    axes: Axes, truth: NDArray[np.uint8], prediction: NDArray[np.bool_], score: float
) -> None:
    """Draw one structure over its radiograph."""
    inside, unknown = truth == 1, truth == 255
    colours = np.zeros((*truth.shape, 4))
    colours[inside & ~prediction] = to_rgba(_TRUTH, _FILL)
    colours[prediction & ~inside] = to_rgba(_PREDICTION, _FILL)
    colours[unknown] = to_rgba(_UNKNOWN, _FILL)
    axes.imshow(colours, interpolation="nearest")
    for mask, colour, linewidth, dashes in (
        (inside, _TRUTH, _WIDTHS[0], "-"),
        (prediction & ~unknown, _PREDICTION, _WIDTHS[1], _DASHES),
    ):
        if mask.any():
            _outline(axes, mask).set(edgecolor=colour, linewidth=linewidth, linestyle=dashes)
    if not np.isnan(score):
        axes.text(
            *(0.03, 0.03, f"Dice {score:.2f}"),
            transform=axes.transAxes,
            fontsize=7.5,
            color="white",
            bbox={"facecolor": "black", "alpha": 0.5, "linewidth": 0, "pad": 1.5},
        )


def _outline(axes: Axes, mask: NDArray[np.bool_]) -> ContourSet:
    """Draw the border of a mask, closed where it meets the border of the image."""
    height, width = mask.shape
    border = axes.contour(
        np.arange(-1, width + 1),
        np.arange(-1, height + 1),
        np.pad(mask, 1).astype(np.float64),
        levels=[0.5],
    )
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    return border


def _add_legend(figure: Figure, *, unknown: bool) -> None:
    """Say below the panels what the colours mean."""
    entries: list[Line2D | Patch] = [
        Line2D([], [], color=_TRUTH, lw=_WIDTHS[0], label="truth"),
        Line2D([], [], color=_PREDICTION, lw=_WIDTHS[1], ls=_DASHES, label="prediction"),
        Patch(color=_TRUTH, alpha=_FILL, label="false negative", linewidth=0),
        Patch(color=_PREDICTION, alpha=_FILL, label="false positive", linewidth=0),
    ]
    if unknown:
        entries.append(Patch(color=_UNKNOWN, alpha=_FILL, label="unknown", linewidth=0))
    figure.legend(
        handles=entries,
        loc="outside lower center",
        ncols=len(entries) if len(figure.axes) > 2 else 2,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
    )

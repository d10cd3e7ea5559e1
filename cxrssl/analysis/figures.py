"""Figures of a run: its curves, and what patch tokens see."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from cxrssl.analysis.axes import COLOURS, INK, finish, own_axes

__all__ = [
    "curve_panels",
    "patch_colours",
    "plot_curve",
    "plot_curves",
    "plot_patch_colours",
    "plot_patch_pca",
]

Curves = Mapping[str, Sequence[tuple[int, float]]]

_SMOOTHED_FROM = 60
_SMOOTH = "Learning rate"
_SHORTER = {
    "probe/linear/auroc/macro": "linear",
    "probe/knn/auroc/macro": "kNN",
    "probe/linear/auprc/macro": "linear",
    "probe/knn/auprc/macro": "kNN",
    "val/auroc/macro": "AUROC",
    "val/auprc/macro": "AUPRC",
}
_FEW_IN_LEGEND = 6


def _is_total(name: str) -> bool:
    return name in ("loss", "train/loss", "val/loss", "loss_epoch", "loss_step")


def _is_term(name: str) -> bool:
    return name.startswith("loss/")


def _is_spread(name: str) -> bool:
    return name.startswith("health/") and f"_{name.split('/')[-1]}".endswith("_std")


def _below(*prefixes: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(prefixes)


def _named(*names: str) -> Callable[[str], bool]:
    return lambda name: name.removeprefix("health/").split("/")[-1] in names


_PANELS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("Loss", _is_total),
    ("Loss terms, unweighted", _is_term),
    ("Validation, macro", lambda name: name in ("val/auroc/macro", "val/auprc/macro")),
    ("Candidates, macro AUROC", _below("candidates/auroc/")),
    ("Candidates, macro AUPRC", _below("candidates/auprc/")),
    ("Dice, validation", _below("val/dice/")),
    ("Probe, macro AUROC", lambda name: name.startswith("probe/") and "/auroc/macro" in name),
    ("Probe, macro AUPRC", lambda name: name.startswith("probe/") and "/auprc/macro" in name),
    ("Effective rank", _named("effective_rank")),
    ("Feature spread", _named("feature_spread")),
    ("Spread of levels and embeddings", _is_spread),
    ("Token spread", _named("prediction_spread", "target_spread")),
    ("Teacher entropy (nats)", _named("teacher_entropy")),
    ("Prototypes", _named("prototype_usage", "student_teacher_agreement")),
    ("Shares of objectives", _below("share/")),
    ("Gradient norm", lambda name: "grad_norm" in name),
    (_SMOOTH, lambda name: name.split("/")[-1] == "lr" or name.startswith("lr-")),
)


def plot_curves(history: Curves) -> Figure:
    """Return small multiples of a run's curves: losses, scores, health and the learning rate.

    Only panels with something to show are drawn. Long noisy curves get a running mean over a
    fiftieth of their points.

    Args:
        history: Points (step, value) of every metric, under the names the callbacks log; other
            names are left out.

    Raises:
        ValueError: If no metric has a point that can be drawn.
    """
    panels = curve_panels(history)
    if not panels:
        raise ValueError(f"none of the metrics {sorted(history)} has a curve that can be drawn")
    columns = min(4, math.ceil(math.sqrt(len(panels))))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, curves) in enumerate(panels.items()):
        plot_curve(curves, title, figure.add_subplot(rows, columns, number + 1))
    return figure


def curve_panels(history: Curves) -> dict[str, Curves]:
    """Return the curves that :func:`plot_curves` draws, by the titles of their panels.

    Args:
        history: As there; empty curves are left out.
    """
    panels: dict[str, Curves] = {}
    for title, belongs in _PANELS:
        curves = {name: points for name, points in history.items() if points and belongs(name)}
        if curves:
            panels[title] = curves
    return panels


def plot_patch_pca(
    images: NDArray[np.floating], patches: NDArray[np.floating], grid: tuple[int, int]
) -> Figure:
    """Return radiographs beside their patch tokens' first three principal components as RGB.

    The components are those of the tokens of all images together, so that one colour means the
    same thing everywhere. Each component is scaled between its 2nd and 98th percentile, and its
    sign is chosen so that its largest weight is positive.

    Args:
        images: (B, H, W) in [0, 1].
        patches: Patch tokens (B, N, D), row by row.
        grid: Rows and columns (h, w) of the patches, h * w = N.

    Raises:
        ValueError: If the shapes do not belong together, or there is no image.
    """
    n_images, n_patches = patches.shape[:2]
    if n_images == 0 or len(images) != n_images or grid[0] * grid[1] != n_patches:
        raise ValueError(
            f"{len(images)} images and patches {patches.shape} do not fit a grid of {grid}"
        )
    colours = patch_colours(patches, grid)
    pairs = min(3, n_images)
    rows = -(-n_images // pairs)
    height, width = images.shape[1:]
    side = 2.1
    figure = Figure(
        figsize=(2 * pairs * side, rows * side * height / width + 0.45),
        dpi=130,
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0),
    )
    FigureCanvasAgg(figure)
    figure.suptitle(
        "First three principal components of patch tokens, over all images", fontsize=9, color=INK
    )
    for number in range(n_images):
        for offset, shown in enumerate((images[number], colours[number])):
            axes = figure.add_subplot(rows, 2 * pairs, 2 * number + offset + 1)
            if offset:
                plot_patch_colours(shown, axes, size=(height, width))
            else:
                axes.imshow(shown, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
            axes.set_axis_off()
    return figure


def plot_patch_colours(
    colours: NDArray[np.floating], ax: Axes | None = None, *, size: tuple[int, int] | None = None
) -> Axes:
    """Show the colours of one image's patches, and return the axes.

    Args:
        colours: (h, w, 3) of :func:`patch_colours`.
        ax: Axes to draw on; those of a new figure if None.
        size: Height and width in pixels of the image, for coordinates in it; h and w if None.
    """
    axes = own_axes(ax, 2.4, 2.4)
    height, width = colours.shape[:2] if size is None else size
    axes.imshow(colours, interpolation="nearest", extent=(0, width, height, 0))
    axes.set_axis_off()
    return axes


def plot_curve(curves: Curves, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw curves of a run over its optimiser steps, a panel of :func:`plot_curves`.

    Args:
        curves: Points (step, value) of every metric.
        title: Above the axes, such as a title of :func:`curve_panels`.
        ax: Axes to draw on; those of a new figure if None.
    """
    axes = own_axes(ax)
    for number, (name, points) in enumerate(sorted(curves.items())):
        steps, values = np.array(points, dtype=np.float64).T
        again, place = divmod(number, len(COLOURS))
        colour, dashes = COLOURS[place], ("-", "--", ":")[again % 3]
        label = _label(name)
        if len(values) >= _SMOOTHED_FROM and title != _SMOOTH:
            axes.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
            values = _running_mean(values, len(values) // 50 | 1)
        marker = "o" if len(values) <= 30 else None
        style: dict[str, Any] = {
            "color": colour,
            "linestyle": dashes,
            "linewidth": 1.6,
            "marker": marker,
            "ms": 3,
        }
        axes.plot(steps, values, label=label, **style)
    axes.margins(y=0.12)
    finish(axes, title)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("optimiser step", fontsize=8, color=INK)
    if title == "Prototypes":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if title == _SMOOTH:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
        axes.yaxis.get_offset_text().set_fontsize(8)
    if len(curves) > 1:
        many = len(curves) > _FEW_IN_LEGEND
        axes.legend(
            fontsize=5.5 if many else 7.5,
            ncols=2 if many else 1,
            frameon=many,
            framealpha=0.85,
            edgecolor="none",
            labelcolor=INK,
            handlelength=1.4,
        )
    return axes


def _label(name: str) -> str:
    if name in _SHORTER:
        return _SHORTER[name]
    last = name.removeprefix("health/grad_norm_").split("/")[-1]
    whole = name.removeprefix("loss/") if _is_term(name) or _is_total(name) else last
    return whole.replace("/", " ").replace("_", " ")


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the centred mean over an odd number of points, fewer at both ends."""
    kernel = np.ones(width)
    mean: NDArray[np.float64] = np.convolve(values, kernel, "same") / np.convolve(
        np.ones_like(values), kernel, "same"
    )
    return mean


def patch_colours(patches: NDArray[np.floating], grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return the colours (B, h, w, 3) of :func:`plot_patch_pca`; 0.5 where a component is flat.

    Args:
        patches: Patch tokens (B, N, D) of images, row by row.
        grid: Rows and columns (h, w) of the patches, h * w = N.
    """
    tokens = patches.reshape(-1, patches.shape[2]).astype(np.float64)
    tokens -= tokens.mean(0)
    axes = np.linalg.eigh(tokens.T @ tokens)[1][:, ::-1][:, :3]  # (D, 3 or fewer), largest first
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    projected = tokens @ axes
    low, high = np.percentile(projected, (2, 98), axis=0)
    span = high - low
    flat = span <= 1e-6 * max(float(np.abs(tokens).max()), 1e-12)
    scaled = np.clip((projected - low) / np.where(flat, 1, span), 0, 1)
    scaled[:, flat] = 0.5
    colours = np.full((len(tokens), 3), 0.5)
    colours[:, : axes.shape[1]] = scaled
    return colours.reshape(len(patches), *grid, 3)

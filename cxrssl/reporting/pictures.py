"""Figures as images within the page: charts as SVG, radiographs as JPEG, the same each time."""

import base64
import io
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cxrssl.analysis.axes import show_image
from cxrssl.reporting.content import Picture

__all__ = ["chart", "picture", "radiograph"]

_SIDE = 256
"""Pixels of a picture's width."""
_QUALITY = 82
_DPI = 100


def chart(
    draw: Callable[[Axes], object],
    alt: str,
    caption: str = "",
    *,
    width: float = 4.4,
    height: float = 3.0,
) -> Picture:
    """Return a chart as SVG.

    Args:
        draw: Draws it on axes.
        alt: What is to be seen.
        caption: Below it.
        width: In inches, on which the size of its letters depends.
        height: In inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure.add_subplot())
    # Without a salt and a date the file would be another one each time.
    with mpl.rc_context({"svg.hashsalt": "cxrssl"}):
        source = _save(figure, "svg", metadata={"Date": None, "Creator": None})
    return Picture(source, alt, caption)


def picture(
    draw: Callable[[Axes], object], alt: str, caption: str = "", *, good: bool = False
) -> Picture:
    """Return a square picture without margins as JPEG.

    Args:
        draw: Draws it on axes that fill the picture.
        alt: What is to be seen.
        caption: Below it.
        good: Whether the caption stands out.
    """
    figure = Figure(figsize=(_SIDE / _DPI, _SIDE / _DPI), dpi=_DPI, facecolor="black")
    FigureCanvasAgg(figure)
    draw(figure.add_axes((0, 0, 1, 1)))
    source = _save(figure, "jpeg", dpi=_DPI, pil_kwargs={"quality": _QUALITY})
    return Picture(source, alt, caption, good)


def radiograph(
    image: NDArray[np.floating], alt: str, caption: str = "", *, good: bool = False
) -> Picture:
    """Return a radiograph (S, S) in [0, 1] as a picture; see :func:`picture`."""
    return picture(partial(show_image, image=image), alt, caption, good=good)


def _save(figure: Figure, form: str, **options: Any) -> str:
    file = io.BytesIO()
    figure.savefig(file, format=form, **options)
    mime = {"svg": "image/svg+xml", "jpeg": "image/jpeg"}[form]
    return f"data:{mime};base64,{base64.b64encode(file.getvalue()).decode()}"

"""Random geometry of a whole view, applied once, to an image and to its masks alike."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError
from cxrssl.views.base import check_range
from cxrssl.views.crops import Resampling, check_crop, draw_box, resize

__all__ = ["Warp", "WarpLaw"]

TIE = 1e-6
"""Share of a pixel by which nearest pixels are told apart; more than rounding errors, and less
than anything drawn."""

CELLS = 16
"""Cells along a side of the elastic field."""

SMOOTHNESS = 2.0
"""Standard deviation, in cells, of the Gaussian that smooths the elastic field."""

REACH = 6
"""Cells on either side of a cell that the Gaussian takes in."""


class Warp(NamedTuple):
    """Where in an image each pixel of a view comes from.

    Attributes:
        rows: Row (S, S) in the image of the centre of each pixel; 0 is the centre of the first row.
        columns: Column (S, S).
        step: Rows and columns of the image that a pixel of the view spans.
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    step: tuple[float, float]

    def image(
        self, image: NDArray[np.uint8], fill: int = 0, resampling: Resampling = "area"
    ) -> NDArray[np.uint8]:
        """Return the view (S, S) of an image (H, W) uint8; what lies outside the image is filled.

        The part in view is first resized to the scale of the view, which is what antialiases, and
        then interpolated linearly at what is left: rotation, fractions of a pixel, bending.
        """
        top, bottom = _span(self.rows, self.step[0], image.shape[0])
        left, right = _span(self.columns, self.step[1], image.shape[1])
        height = max(1, round((bottom - top) / self.step[0]))
        width = max(1, round((right - left) / self.step[1]))
        near = resize(image[top:bottom, left:right], height, width, resampling)
        rows = (self.rows + 0.5 - top) * (height / (bottom - top)) - 0.5
        columns = (self.columns + 0.5 - left) * (width / (right - left)) - 0.5
        return _sample(near, rows, columns, cv2.INTER_LINEAR, fill)

    def masks(self, masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the view (K, S, S) of masks (K, H, W) uint8, by the nearest pixel; 0 outside."""
        rows, columns = (np.floor(where + (0.5 + TIE)) for where in (self.rows, self.columns))
        view = np.empty((len(masks), *rows.shape), dtype=np.uint8)
        for plane, mask in zip(view, masks, strict=True):
            plane[:] = _sample(mask, rows, columns, cv2.INTER_NEAREST, 0)
        return view


@dataclass(frozen=True)
class WarpLaw:
    """How a view's geometry is drawn: a crop, then a change about its centre, in one map.

    Args:
        size: Side S of the view in pixels.
        scale: Smallest and largest share of the image's area in the crop.
        ratio: Smallest and largest width / height of the crop's box, which becomes a square.
        flip: Probability of a horizontal flip.
        degrees: Largest rotation to either side.
        translate: Largest shift in each direction, as a share of the side.
        zoom: Smallest and largest magnification.
        elastic: Standard deviation of a smooth random displacement, in each direction, as a share
            of the side. Displacements correlate over about a sixth of the side.

    Raises:
        InputError: An option is out of range.
    """

    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    degrees: float
    translate: float
    zoom: tuple[float, float]
    elastic: float

    def __post_init__(self) -> None:
        check_crop(self.scale, self.ratio)
        check_range("zoom", self.zoom, zero=False)
        # Further shifts, or a stronger bend, could leave no pixel of the image in view.
        limits = {"flip": 1.0, "degrees": 180.0, "translate": 0.5, "elastic": 0.1}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit:
                raise InputError(f"{name} must be in [0, {limit:g}], got {getattr(self, name)}")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Warp:
        """Draw the geometry of a view of an image (H, W).

        In turn: the box, as in :func:`cxrssl.views.crops.random_resized_crop`, the flip, the
        angle, the shift down and right, the magnification, the displacement.
        """
        box = draw_box(height, width, self.scale, self.ratio, rng)
        mirror = -1 if rng.random() < self.flip else 1
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        shift = self.size * rng.uniform(-self.translate, self.translate, 2)
        zoom = rng.uniform(*self.zoom)
        centres = np.arange(self.size) + 0.5 - self.size / 2
        # From the view to the image: each step undoes what it is called after.
        y, x = centres[:, None] - shift[0], centres[None, :] - shift[1]
        if self.elastic > 0:
            down, right = self.size * self.elastic * _smooth_field(self.size, rng)
            y, x = y + down, x + right
        cos, sin = math.cos(angle), math.sin(angle)
        y, x = cos * y + sin * x, mirror * (cos * x - sin * y)
        step = box.height / self.size / zoom, box.width / self.size / zoom
        rows = box.top + box.height / 2 - 0.5 + step[0] * y
        columns = box.left + box.width / 2 - 0.5 + step[1] * x
        return Warp(rows, columns, step)


def _span(where: NDArray[np.float64], step: float, length: int) -> tuple[int, int]:
    """Return from where to where an image is needed along one axis, at least one pixel."""
    # Two pixels of the view more, so that the cut is not seen in those at its border.
    margin = 2 * max(step, 1.0)
    start = min(max(math.floor(where.min() - margin), 0), length - 1)
    return start, max(min(math.ceil(where.max() + margin) + 1, length), start + 1)


def _sample(
    image: NDArray[np.uint8],
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    interpolation: int,
    fill: int,
) -> NDArray[np.uint8]:
    sampled = cv2.remap(
        image,
        columns.astype(np.float32),
        rows.astype(np.float32),
        interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )
    return np.asarray(sampled, dtype=np.uint8)


def _smooth_field(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a displacement (2, size, size), smooth Gaussian noise of unit variance.

    The elastic distortion of Simard et al. (ICDAR 2003), drawn on a coarse grid. The grid is wider
    than the view, so that the variance is the same at the border.
    """
    side = CELLS + 2 * REACH
    kernel = cv2.getGaussianKernel(2 * REACH + 1, SMOOTHNESS, cv2.CV_64F)
    field = np.empty((2, size, size))
    for plane, noise in zip(field, rng.standard_normal((2, side, side)), strict=True):
        smooth = np.asarray(cv2.sepFilter2D(noise, -1, kernel, kernel), dtype=np.float64)
        # Each of the two passes multiplied the standard deviation by the root of the sum.
        unit = smooth[REACH:-REACH, REACH:-REACH] / float((kernel**2).sum())
        plane[:] = cv2.resize(unit, (size, size), interpolation=cv2.INTER_CUBIC)
    return field

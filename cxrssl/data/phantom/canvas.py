"""Drawing of smooth outlines on layers of one channel."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Field",
    "Frame",
    "Layer",
    "Points",
    "band",
    "blur",
    "coarse",
    "ellipse",
    "enlarge",
    "outside",
    "overlap",
    "soft",
    "spline",
    "union",
    "wide_blur",
]

Points = NDArray[np.float64]
Layer = NDArray[np.uint8]
Field = NDArray[np.float32]

# Shapes are drawn this many times finer than the image and averaged: smooth edges in true places.
_OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
_COARSE_SIDE = 32


class Frame:
    """Maps the thorax onto a square image and draws there.

    A point of the thorax is (x, y): x in half-widths of the thorax from the midline, positive at
    the patient's left, which is the right of the image; y in lung heights from the apex downwards.

    Args:
        side: Side of the image in pixels, S. Drawing happens on finer sheets.
        half_width: Half the width of the thorax, as a share of the side.
        height: Height of the lungs, as a share of the side.
        origin: Where (0, 0) stands in the image, as shares of the side.
        tilt: Turn in the plane of the image, in radians.
        yaw: Sideways shift, in half-widths, of a point whose depth is 1 (front).
    """

    def __init__(
        self,
        side: int,
        *,
        half_width: float,
        height: float,
        origin: tuple[float, float],
        tilt: float,
        yaw: float,
    ) -> None:
        self.side = side
        self.half_width = half_width * side
        self.yaw = yaw
        self._fine = side * _OVERSAMPLING
        cos, sin = np.cos(tilt), np.sin(tilt)
        scale = np.array([half_width, height]) * self._fine
        self._matrix = np.array([[cos, sin], [-sin, cos]]) * scale[:, None]
        self._offset = np.array(origin) * self._fine - 0.5

    def pixels(self, points: Points, depth: float | Points = 0.0) -> Points:
        """Return points (..., 2) of the thorax in pixels of a sheet.

        Args:
            points: (..., 2) x and y in the thorax.
            depth: From -1 (back) to 1 (front), one number or (...,).
        """
        placed: Points = points @ self._matrix + self._offset
        if self.yaw:
            placed += np.multiply.outer(depth * self.yaw, self._matrix[0])
        return placed

    def sheet(self) -> Layer:
        """Return an empty sheet to draw on."""
        return np.zeros((self._fine, self._fine), np.uint8)

    def finish(self, sheet: Layer) -> Layer:
        """Return a sheet as a layer (S, S) of the image."""
        small = cv2.resize(sheet, (self.side, self.side), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)

    def shape(self, polygons: Points | Sequence[Points], depth: float | Points = 0.0) -> Layer:
        """Return a layer (S, S) with polygons filled."""
        return self.finish(self.fill(self.sheet(), polygons, depth=depth))

    def fill(
        self,
        sheet: Layer,
        polygons: Points | Sequence[Points],
        value: int = 255,
        depth: float | Points = 0.0,
    ) -> Layer:
        """Fill polygons, (L, N, 2) or a sequence of (N, 2), with a grey value; return the sheet."""
        if isinstance(polygons, np.ndarray):
            fixed = list(self._fixed(polygons, depth))
        else:
            fixed = [self._fixed(polygon, depth) for polygon in polygons]
        for polygon in fixed:
            cv2.fillPoly(sheet, [polygon], value, cv2.LINE_AA, _SUBPIXEL_BITS)
        return sheet

    def trace(
        self,
        sheet: Layer,
        lines: Points,
        width: float,
        value: int = 255,
        depth: float | Points = 0.0,
    ) -> Layer:
        """Draw lines (L, N, 2) and return the sheet.

        Args:
            sheet: Where to draw.
            lines: (L, N, 2), L lines of N points.
            width: In half-widths of the thorax. A line thinner than a pixel of the
                sheet is drawn fainter.
            value: Grey value of a line at least one pixel wide.
            depth: As in :meth:`pixels`.
        """
        wide = width * self.half_width * _OVERSAMPLING
        # A smoothed line of even thickness t covers t + 1.6 pixels, one of thickness 1 covers 1.35.
        drawn = 1 if wide < 2.4 else 2 * max(1, round((wide - 1.6) / 2))
        faint = round(value * min(1.0, wide / (1.35 if drawn == 1 else drawn + 1.6)))
        paths = list(self._fixed(lines, depth))
        cv2.polylines(sheet, paths, False, faint, drawn, cv2.LINE_AA, _SUBPIXEL_BITS)
        return sheet

    def _fixed(self, points: Points, depth: float | Points) -> NDArray[np.int32]:
        fixed: NDArray[np.int32] = np.rint(self.pixels(points, depth) * 2**_SUBPIXEL_BITS).astype(
            np.int32
        )
        return fixed


@cache
def _basis(count: int, samples: int, closed: bool) -> NDArray[np.float64]:
    """Return the matrix (samples, count) from control points to a Catmull-Rom curve."""
    pieces = count if closed else count - 1
    position = np.linspace(0, pieces, samples, endpoint=not closed)
    piece = np.minimum(position.astype(int), pieces - 1)
    t = position - piece
    weights = 0.5 * np.stack(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ]
    )
    basis = np.zeros((samples, count))
    for row, weight in zip(range(-1, 3), weights, strict=True):
        control = (piece + row) % count if closed else np.clip(piece + row, 0, count - 1)
        np.add.at(basis, (np.arange(samples), control), weight)
    return basis


def spline(
    controls: Points | Sequence[tuple[float, float]], samples: int, *, closed: bool = False
) -> Points:
    """Return a smooth curve (samples, 2) through control points (K, 2)."""
    return _basis(len(controls), samples, closed) @ np.asarray(controls, np.float64)


@cache
def _circle(samples: int) -> Points:
    angle = np.linspace(0, 2 * np.pi, samples, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> Points:
    """Return an ellipse (48, 2), turned by an angle in radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    points: Points = (_circle(48) * radii) @ np.array([[cos, sin], [-sin, cos]]) + centre
    return points


def band(line: Points, width: float | Points, aspect: float) -> Points:
    """Return the outline (..., 2N, 2) of a band around a line.

    Args:
        line: (..., N, 2) in the thorax; no two neighbouring points are equal.
        width: Full width in half-widths of the thorax, one number or (N,).
        aspect: Height of the lungs over the half-width of the thorax.
    """
    step = np.empty_like(line)
    step[..., 1:-1, :] = line[..., 2:, :] - line[..., :-2, :]
    step[..., 0, :] = line[..., 1, :] - line[..., 0, :]
    step[..., -1, :] = line[..., -1, :] - line[..., -2, :]
    step[..., 1] *= aspect
    step *= (np.asarray(width) / 2 / np.hypot(step[..., 0], step[..., 1]))[..., None]
    normal = np.stack([-step[..., 1], step[..., 0] / aspect], -1)
    return np.concatenate([line + normal, (line - normal)[..., ::-1, :]], -2)


def soft(layer: Layer, weight: float) -> Field:
    """Return a layer as float32, its full value 255 becoming ``weight``."""
    return layer * np.float32(weight / 255)


def blur(layer: Layer, sigma: float) -> Layer:
    """Return a layer blurred by a standard deviation in pixels."""
    return np.asarray(cv2.GaussianBlur(layer, (0, 0), max(sigma, 1e-3)), np.uint8)


def overlap(layer: Layer, other: Layer) -> Layer:
    """Return what two layers share: the smaller value at each place."""
    return np.asarray(cv2.min(layer, other), np.uint8)


def union(layer: Layer, other: Layer) -> Layer:
    """Return the larger value of two layers at each place."""
    return np.asarray(cv2.max(layer, other), np.uint8)


def outside(layer: Layer, other: Layer) -> Layer:
    """Return a layer less another one, never below 0."""
    return np.asarray(cv2.subtract(layer, other), np.uint8)


def wide_blur(field: Field, sigma: float) -> Field:
    """Return a field blurred widely, at a cost that does not grow with the blur.

    Args:
        field: (S, S) float32.
        sigma: Standard deviation of the blur, as a share of the side; at least 0.02.
    """
    small = cv2.resize(field, (_COARSE_SIDE, _COARSE_SIDE), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(small, (0, 0), sigma * _COARSE_SIDE)
    return enlarge(np.asarray(blurred, np.float32), field.shape[0])


def enlarge(field: Field, side: int) -> Field:
    """Return a small field, smoothly interpolated to (side, side)."""
    return np.asarray(cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def coarse(layer: Layer, sigma: float) -> Field:
    """Return a layer in [0, 1] blurred as by :func:`wide_blur`."""
    return wide_blur(soft(layer, 1.0), sigma)

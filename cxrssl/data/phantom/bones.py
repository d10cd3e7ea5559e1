"""Ribs, spine, clavicles, scapulae and upper arms in the frame of the thorax."""

import numpy as np

from cxrssl.data.phantom.anatomy import Anatomy, Pose
from cxrssl.data.phantom.canvas import Points, band, ellipse, spline
from cxrssl.data.phantom.organs import Lung

__all__ = ["clavicles", "humeri", "ribs", "scapulae", "vertebrae"]

_BACK, _FRONT = np.linspace(0.06, 0.53, 20) * np.pi, np.linspace(0.48, 0.80, 16) * np.pi
_BODY = np.array([[-1, -1], [0, -0.8], [1, -1], [0.9, 0], [1, 1], [0, 0.8], [-1, 1], [-0.9, 0]])


def ribs(lungs: tuple[Lung, Lung], anatomy: Anatomy, *, front: bool) -> tuple[Points, Points]:
    """Return the centre lines (L, N, 2) of front or back halves of the ribs, and their depth (N,).

    A rib is a tilted ring: level at the spine, steep at the chest wall, and back towards the
    midline further down.
    """
    angle = _FRONT if front else _BACK
    rib = np.arange(9 if front else 11)[:, None]
    start = -0.035 + 0.091 * rib + 0.0008 * rib**2
    drop = anatomy.rib_drop * (0.62 + 0.095 * np.minimum(rib, 4))
    y = start + drop * (0.5 - 0.5 * np.cos(angle)) + 0.012 * np.sin(2 * angle)  # (ribs, N)
    lateral = np.minimum(start + drop / 2, 0.85)
    profile = np.sin(angle) ** 0.9
    sides = [np.stack([lung.side * lung.wall(lateral) * profile, y], -1) for lung in lungs]
    return np.concatenate(sides), -np.cos(angle)


def clavicles(anatomy: Anatomy) -> list[Points]:
    """Return the outlines of both clavicles."""
    rise = anatomy.clavicle_rise
    line = spline(
        [
            (0.13, 0.125),
            (0.34, 0.10 - 0.4 * rise),
            (0.70, 0.03 - 0.75 * rise),
            (1.12, 0.035 - rise),
        ],
        20,
    )
    width = 0.08 + 0.045 * np.abs(np.linspace(0.6, -0.9, 20)) ** 3
    outline = band(line, width, anatomy.aspect)
    return [outline, outline * (-1, 1)]


def scapulae(pose: Pose) -> list[Points]:
    """Return the outlines of both scapulae."""
    out = pose.scapula
    outline = spline(
        [
            (0.78 + out, 0.04), (1.05 + out, -0.01), (1.30, 0.03), (1.22, 0.13), (1.12 + out, 0.26),
            (1.02 + out, 0.46), (0.93 + out, 0.46), (0.86 + out, 0.26),
        ],
        32,
        closed=True,
    )  # fmt: skip
    return [outline, outline * (-1, 1)]


def humeri(anatomy: Anatomy, pose: Pose) -> list[Points]:
    """Return the outlines of the heads and shafts of both upper arm bones."""
    fat, away = 0.6 * anatomy.fat, pose.arm
    line = spline(
        [(1.33, 0.07), (1.38 + fat + 0.3 * away, 0.3), (1.42 + fat + 2.2 * away, 2.2)], 12
    )
    shaft = band(line, 0.13, anatomy.aspect)
    head = ellipse((1.30, 0.055), (0.155, 0.155 / anatomy.aspect))
    return [shape * (side, 1) for side in (-1, 1) for shape in (shaft, head)]


def vertebrae(anatomy: Anatomy) -> tuple[Points, Points]:
    """Return the outlines of the vertebral bodies, and of their pedicles and spinous processes."""
    y = np.arange(-0.42, 1.7, 0.088)
    x = anatomy.scoliosis * np.sin(3.2 * y)
    wide = 0.085 + 0.03 * np.clip(y, 0, 1.2)
    centre = np.stack([x, y], -1)[:, None]  # (V, 1, 2)
    bodies = centre + _BODY * np.stack([wide, np.full_like(y, 0.036)], -1)[:, None]
    pedicle, process = ellipse((0.0, -0.008), (0.022, 0.016)), ellipse((0.0, 0.03), (0.016, 0.018))
    aside = np.stack([0.62 * wide, np.zeros_like(y)], -1)[:, None]
    small = [centre + aside + pedicle, centre - aside + pedicle, centre + process]
    return bodies, np.concatenate(small)

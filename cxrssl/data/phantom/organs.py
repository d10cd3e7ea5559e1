"""Outlines of lungs, heart, mediastinum and body in the frame of the thorax."""

from dataclasses import dataclass

import numpy as np

from cxrssl.data.phantom.anatomy import Anatomy, Pose
from cxrssl.data.phantom.canvas import Points, ellipse, spline

__all__ = ["Lung", "arms", "breasts", "gas_bubble", "heart", "lung", "mediastinum", "trunk"]

_HEART_TOP = 0.43


@dataclass(frozen=True)
class Lung:
    """One lung field, in three smooth parts that meet at the costophrenic angle and the midline.

    Args:
        side: -1 for the patient's right lung (left in the image), 1 for the left one.
        outer: (32, 2) from the apex along the chest wall to the costophrenic angle.
        dome: (20, 2) along the diaphragm to the midline.
        inner: (20, 2) along the mediastinum back to the apex.
    """

    side: int
    outer: Points
    dome: Points
    inner: Points

    @property
    def outline(self) -> Points:
        """Closed outline (72, 2)."""
        return np.concatenate([self.outer, self.dome, self.inner])

    @property
    def base(self) -> float:
        """Height of the costophrenic angle."""
        return float(self.outer[-1, 1])

    @property
    def crest(self) -> float:
        """Height of the top of the diaphragm."""
        return float(self.dome[:, 1].min())

    def wall(self, y: float | Points) -> Points:
        """Return the distance of the chest wall from the midline at heights of any shape."""
        return np.asarray(np.interp(y, self.outer[:, 1], np.abs(self.outer[:, 0])))


def lung(side: int, anatomy: Anatomy, pose: Pose) -> Lung:
    """Return the lung field of one side."""
    angle = 0.90 + 0.10 * pose.inspiration
    crest = angle - 0.17 + 0.03 * pose.inspiration
    crest += -anatomy.dome_gap / 2 if side < 0 else anatomy.dome_gap / 2
    outer = [
        (0.36, -0.005), (0.52, 0.01), (0.68, 0.09), (0.82, 0.22), (0.92, 0.40),
        (0.975, 0.60), (0.995, 0.78), (0.985, angle - 0.03), (0.965, angle),
    ]  # fmt: skip
    dome = [
        (0.965, angle), (0.90, angle - 0.055), (0.75, crest + 0.03), (0.48, crest),
        (0.26, crest + 0.018), (0.12, crest + 0.05),
    ]  # fmt: skip
    inner = [
        (0.12, crest + 0.05),
        (0.10, 0.6),
        (0.12, 0.3),
        (0.17, 0.10),
        (0.25, 0.02),
        (0.36, -0.005),
    ]
    mirror = (side, 1)
    return Lung(
        side,
        spline(outer, 32) * mirror,
        spline(dome, 20) * mirror,
        spline(inner, 20) * mirror,
    )


def heart(ratio: float, anatomy: Anatomy, pose: Pose) -> Points:
    """Return the outline (64, 2) of the heart for a cardiothoracic ratio."""
    ratio += 0.02 * (pose.view_position == "AP") + 0.015 * (1 - pose.inspiration)
    left = 2 * ratio * anatomy.heart_tilt
    right = 2 * ratio - left
    floor = 0.86 + 0.07 * pose.inspiration
    long = floor - _HEART_TOP
    controls = [
        (-0.15, _HEART_TOP), (-0.82 * right, _HEART_TOP + 0.24 * long),
        (-right, _HEART_TOP + 0.55 * long), (-0.88 * right, _HEART_TOP + 0.85 * long),
        (-0.4 * right, floor + 0.02), (0.35 * left, floor + 0.04), (0.82 * left, floor),
        (left, _HEART_TOP + 0.80 * long), (0.95 * left, _HEART_TOP + 0.60 * long),
        (0.78 * left, _HEART_TOP + 0.36 * long), (0.53 * left, _HEART_TOP + 0.13 * long),
        (0.24, _HEART_TOP - 0.04), (0.05, _HEART_TOP - 0.06),
    ]  # fmt: skip
    return spline(controls, 64, closed=True)


def mediastinum(anatomy: Anatomy) -> list[Points]:
    """Return the band between the lungs, aortic knob, descending aorta and pulmonary trunk."""
    knob = anatomy.aorta
    middle = [
        (-0.15, -0.30), (-0.16, 0.0), (-0.165, 0.2), (-0.20, 0.34), (-0.19, 0.5), (-0.13, 0.95),
        (0.15, 0.95), (0.20, 0.5), (0.19, 0.36), (0.13, 0.18), (0.16, 0.0), (0.15, -0.30),
    ]  # fmt: skip
    return [
        spline(middle, 48, closed=True),
        ellipse((0.11 + 0.35 * knob, 0.26), (knob, knob * 0.62)),
        spline(
            [(0.10, 0.26), (0.10 + knob, 0.27), (0.09 + knob, 0.45), (0.10, 0.95)], 24, closed=True
        ),
        ellipse((0.17, 0.385), (0.11, 0.055)),
    ]


def trunk(anatomy: Anatomy) -> Points:
    """Return the outline (96, 2) of neck, shoulders and trunk."""
    fat = anatomy.fat
    half = [
        (0.33 + 0.4 * fat, -0.60), (0.33 + 0.4 * fat, -0.24), (0.52 + 0.4 * fat, -0.135),
        (0.95, -0.085), (1.28 + 0.5 * fat, -0.03), (1.42 + fat, 0.08), (1.36 + fat, 0.24),
        (1.14 + fat, 0.36), (1.10 + fat, 0.55), (1.11 + fat, 0.80), (1.10 + 1.2 * fat, 1.1),
        (1.08 + 1.2 * fat, 2.6),
    ]  # fmt: skip
    curve = spline(half, 48)
    return np.concatenate([curve, (curve * (-1, 1))[::-1]])


def arms(anatomy: Anatomy, pose: Pose) -> list[Points]:
    """Return the outlines (40, 2) of both upper arms."""
    fat, away = anatomy.fat, pose.arm
    outline = [
        (1.05, -0.04), (1.34 + 0.5 * fat, -0.02), (1.52 + fat + 0.3 * away, 0.12),
        (1.62 + fat + away, 0.5), (1.70 + fat + 2.8 * away, 2.4), (1.28 + fat + 2.8 * away, 2.4),
        (1.20 + fat + away, 0.55), (1.12 + fat + 0.3 * away, 0.30),
    ]  # fmt: skip
    curve = spline(outline, 40, closed=True)
    return [curve, curve * (-1, 1)]


def breasts(anatomy: Anatomy) -> list[Points]:
    """Return the outlines of both breast shadows."""
    size, y = anatomy.breast_size, anatomy.breast_height
    height = size / anatomy.aspect
    x = 0.62 + 0.5 * (size - 0.36)
    return [ellipse((side * x, y), (size, height), side * -0.12) for side in (-1, 1)]


def gas_bubble(left: Lung, size: float) -> Points:
    """Return the gas in the stomach, under the left dome of the diaphragm."""
    return ellipse((0.50, left.crest + 0.045 + 0.5 * size), (size * 1.5, size * 0.55), 0.15)

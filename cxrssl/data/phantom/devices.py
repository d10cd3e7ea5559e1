"""Foreign bodies that have nothing to do with the findings: leads, tubes, catheters, pacemakers."""

from dataclasses import dataclass

import numpy as np

from cxrssl.data.phantom.canvas import Frame, Layer, Points, ellipse, spline

__all__ = ["Devices"]

_WIRE = 0.014


@dataclass(frozen=True)
class Devices:
    """Which foreign bodies a radiograph shows.

    Args:
        leads: Electrodes of a monitor with their wires.
        tube: A tube in the trachea.
        catheter: A catheter in the superior vena cava.
        pacemaker: A pacemaker with its wires.
        fasteners: Buttons along the midline.
        jitter: (4, 2) shifts of the parts, standard normal.
    """

    leads: bool
    tube: bool
    catheter: bool
    pacemaker: bool
    fasteners: bool
    jitter: Points

    @classmethod
    def sample(cls, rng: np.random.Generator, *, bedside: bool) -> "Devices":
        """Draw devices; a patient in bed has more of them."""
        frequency = (0.45, 0.22, 0.28, 0.05, 0.02) if bedside else (0.04, 0.0, 0.04, 0.05, 0.06)
        leads, tube, catheter, pacemaker, fasteners = (rng.random(5) < frequency).tolist()
        return cls(leads, tube, catheter, pacemaker, fasteners, rng.standard_normal((4, 2)))

    def layer(self, frame: Frame) -> Layer:
        """Return a layer (S, S) of the frame with all devices."""
        sheet = frame.sheet()
        if self.leads:
            self._draw_leads(frame, sheet)
        if self.tube:
            tip = (0.02, 0.20 + 0.03 * self.jitter[0, 0])
            path = spline([(0.06, -0.5), (0.03, -0.1), tip], 12)
            frame.trace(sheet, path[None], 0.07, 60)
            frame.trace(sheet, path[None] + (0.03, 0.0), _WIRE, 150)
        if self.catheter:
            tip = (-0.14, 0.40 + 0.04 * self.jitter[1, 0])
            path = spline([(-0.34, -0.4), (-0.26, -0.05), (-0.16, 0.14), tip], 16)
            frame.trace(sheet, path[None], 0.022, 140)
        if self.pacemaker:
            self._draw_pacemaker(frame, sheet)
        if self.fasteners:
            rows = np.arange(-0.1, 1.2, 0.22) + 0.03 * self.jitter[2, 0]
            frame.fill(sheet, [ellipse((0.03, y), (0.028, 0.017)) for y in rows], 170, depth=1.0)
        return frame.finish(sheet)

    def _draw_leads(self, frame: Frame, sheet: Layer) -> None:
        places = np.array([(-0.80, 0.12), (0.82, 0.10), (-0.72, 0.92), (0.78, 0.86)])
        places = places + self.jitter * (0.09, 0.05)
        hub = np.array([1.3, 1.3]) * (np.sign(self.jitter[3, 1]), 1)
        for place, bend in zip(places, self.jitter, strict=True):
            middle = (place + hub) / 2 + bend * (0.15, 0.08)
            frame.trace(sheet, spline([place, middle, hub], 16)[None], _WIRE, 125, depth=1.0)
        discs = [ellipse((x, y), (0.055, 0.032)) for x, y in places]
        frame.fill(sheet, discs, 90, depth=1.0)
        studs = [ellipse((x, y), (0.026, 0.015)) for x, y in places]
        frame.fill(sheet, studs, 255, depth=1.0)

    def _draw_pacemaker(self, frame: Frame, sheet: Layer) -> None:
        x, y = (0.74, 0.10) + self.jitter[1] * (0.05, 0.02)
        wire = [(x, y), (0.45, 0.02), (0.10, 0.10), (-0.14, 0.30), (-0.08, 0.62), (0.28, 0.84)]
        frame.trace(sheet, spline(wire, 32)[None], _WIRE, 180)
        frame.fill(sheet, [ellipse((x, y), (0.17, 0.085), 0.3)], 255, depth=1.0)

"""The findings: where they are, how large, and what they do to the lungs."""

from dataclasses import dataclass

import cv2
import numpy as np

from cxrssl.data.phantom.canvas import Frame, Layer, Points, blur, ellipse, overlap, spline
from cxrssl.data.phantom.organs import Lung

__all__ = ["FINDINGS", "Consolidation", "Effusion", "Nodule", "Pneumothorax"]

FINDINGS: tuple[str, ...] = (
    "cardiomegaly",
    "effusion",
    "pneumothorax",
    "nodule",
    "consolidation",
)
"""Names of the findings, in the order of the label columns."""


_MEDIASTINUM = 0.24
# A turned patient's heart moves against the lungs by less than this.
_SWAY = 0.06


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _free_place(
    lung: Lung, heart: Points, along: float, across: float, margin: float, aspect: float
) -> tuple[float, float]:
    """Return a place in a lung that keeps a margin to heart, mediastinum, wall and diaphragm.

    Args:
        lung: Which lung.
        heart: (N, 2) outline of the heart.
        along: In [0, 1), from the apex down.
        across: In [0, 1], from the midline outwards.
        margin: In half-widths of the thorax.
        aspect: Height of the lungs over the half-width of the thorax.
    """
    heights = np.linspace(0.08 + margin / aspect, lung.crest - margin / aspect, 32)
    beside = np.abs(heart[:, 1] - heights[:, None]) < 0.12  # (32, N)
    low = np.where(beside, heart[:, 0] * lung.side, _MEDIASTINUM).max(1) + _SWAY + margin
    high = lung.wall(heights) - margin
    # A large heart leaves no room low in the left lung.
    free = np.flatnonzero(high - low > 0.03)
    place = free[int(along * len(free))]
    x = low[place] + across * (high[place] - low[place])
    return lung.side * float(x), float(heights[place])


@dataclass(frozen=True)
class Effusion:
    """Fluid at the base of one lung, highest at the chest wall.

    Args:
        side: -1 for the patient's right, 1 for the left.
        height: Of the fluid at the chest wall above the costophrenic angle, in lung heights.
        level: Height at the midline as a share of that at the wall; 1 is a straight level.
        opacity: Share of the air that is replaced.
    """

    side: int
    height: float
    level: float
    opacity: float

    @classmethod
    def sample(cls, rng: np.random.Generator, severity: float = 1.0) -> "Effusion":
        """Draw an effusion; at severity 1 small ones are more frequent."""
        return cls(
            _side(rng),
            0.11 + 0.38 * rng.random() ** (1.8 / severity),
            rng.uniform(0.1, 0.7),
            rng.uniform(0.7, 1),
        )

    def mask(self, frame: Frame, lung: Lung, field: Layer) -> Layer:
        """Return the fluid within the lung fields ``field``."""
        across = np.linspace(0.0, 1.0, 16)
        wall = float(lung.wall(lung.base)) + 0.05
        surface = lung.base - self.height * (self.level + (1 - self.level) * across**2.5)
        top = np.stack([lung.side * wall * across, surface], -1)
        deep = lung.base + 0.1
        fluid = np.concatenate([top, [(lung.side * wall, deep), (0.0, deep)]])
        return overlap(frame.shape([fluid]), field)


@dataclass(frozen=True)
class Pneumothorax:
    """Air between chest wall and lung, widest at the apex.

    Args:
        side: -1 for the patient's right, 1 for the left.
        width: Gap between wall and lung at the apex, in half-widths of the thorax.
        reach: How far down the gap goes, in lung heights.
        line: Opacity of the pleural line.
    """

    side: int
    width: float
    reach: float
    line: float

    @classmethod
    def sample(cls, rng: np.random.Generator, severity: float = 1.0) -> "Pneumothorax":
        """Draw a pneumothorax; at severity 1 narrow ones are more frequent."""
        width = 0.08 + 0.2 * rng.random() ** (1.5 / severity)
        return cls(_side(rng), width, rng.uniform(0.45, 0.95), rng.uniform(0.08, 0.15))

    def pleura(self, lung: Lung) -> Points:
        """Return the edge (32, 2) of the collapsed lung."""
        x, y = np.abs(lung.outer[:, 0]), lung.outer[:, 1]
        down = np.clip(y / self.reach, 0, 1)
        gap = self.width * (1 - down**1.5)
        # The apex sinks with the gap; points near it move down more than inwards.
        steep = np.clip((x - 0.3) / 0.5, 0, 1)
        inner = np.maximum(x - gap * (0.25 + 0.75 * steep), 0.12)
        return np.stack([lung.side * inner, y + 0.85 * gap * (1 - 0.8 * steep)], -1)

    def mask(self, frame: Frame, lung: Lung, field: Layer) -> Layer:
        """Return the gap within the lung fields ``field``."""
        collapsed = np.concatenate([self.pleura(lung), lung.dome, lung.inner[:-6]])
        gap = frame.fill(frame.sheet(), [lung.outline])
        return overlap(frame.finish(frame.fill(gap, [collapsed], 0)), field)


@dataclass(frozen=True)
class Nodule:
    """A small round opacity in a lung.

    Args:
        side: -1 for the patient's right, 1 for the left.
        along: Height in the lung, 0 at the apex, 1 at the diaphragm.
        across: 0 at the mediastinum or heart, 1 at the chest wall.
        radius: In half-widths of the thorax.
        opacity: Added in the middle of the nodule.
        lobes: (7,) radius of the outline in seven directions, about 1.
    """

    side: int
    along: float
    across: float
    radius: float
    opacity: float
    lobes: tuple[float, ...]

    @classmethod
    def sample(cls, rng: np.random.Generator, severity: float = 1.0) -> "Nodule":
        """Draw a nodule."""
        return cls(
            _side(rng),
            rng.random(),
            rng.random(),
            0.055 + 0.055 * rng.random() ** (1 / severity),
            0.15 + 0.15 * rng.random() ** (1 / severity),
            tuple(rng.uniform(0.88, 1.12, 7).tolist()),
        )

    def outline(self, lung: Lung, heart: Points, aspect: float) -> Points:
        """Return the outline (32, 2), clear of heart, mediastinum and chest wall."""
        place = _free_place(lung, heart, self.along, self.across, 1.2 * self.radius, aspect)
        angle = np.linspace(0, 2 * np.pi, len(self.lobes), endpoint=False)
        ring = np.stack([np.cos(angle), np.sin(angle) / aspect], -1) * self.radius
        ring *= np.array(self.lobes)[:, None]
        return spline(ring + np.array(place), 32, closed=True)


@dataclass(frozen=True)
class Consolidation:
    """A patch of lung without air, with a mottled texture.

    Args:
        side: -1 for the patient's right, 1 for the left.
        along: Height of its centre in the lung, 0 at the apex, 1 at the diaphragm.
        across: Place of its centre, 0 near mediastinum or heart, 1 near the chest wall.
        radius: In half-widths of the thorax.
        squeeze: Height over width of the patch.
        turn: In radians.
        opacity: Share of the air that is replaced where the patch is densest.
        texture_seed: Seed of the mottling.
    """

    side: int
    along: float
    across: float
    radius: float
    squeeze: float
    turn: float
    opacity: float
    texture_seed: int

    @classmethod
    def sample(cls, rng: np.random.Generator, severity: float = 1.0) -> "Consolidation":
        """Draw a consolidation; lower lobes are more frequent."""
        return cls(
            _side(rng),
            rng.random() ** 0.7,
            rng.random(),
            0.17 + 0.17 * rng.random() ** (1 / severity),
            rng.uniform(0.6, 1.1),
            rng.uniform(-0.6, 0.6),
            0.5 + 0.35 * rng.random() ** (1 / severity),
            int(rng.integers(2**62)),
        )

    def mask(self, frame: Frame, lung: Lung, heart: Points, field: Layer, aspect: float) -> Layer:
        """Return the patch within the lung fields ``field``, fading at its edge."""
        rng = np.random.default_rng(self.texture_seed)
        radii = np.array([self.radius, self.radius * self.squeeze / aspect])
        centre = _free_place(lung, heart, self.along, self.across, 0.4 * self.radius, aspect)
        outline = ellipse(centre, (radii[0], radii[1]), lung.side * self.turn)[::4]
        wobbly = outline + rng.normal(0, 0.1, outline.shape) * radii
        patch = frame.shape([spline(wobbly, 48, closed=True)])
        # Airless lung ends in half-filled lobules: the edge is as blurred as the patch is large.
        return overlap(blur(patch, 0.16 * self.radius * frame.half_width), field)

    def density(self, mask: Layer) -> Layer:
        """Return how full each place of the patch is, 255 where no air is left."""
        rng = np.random.default_rng((self.texture_seed, 1))
        grains = rng.integers(150, 256, (40, 40), dtype=np.uint8)
        mottle = cv2.resize(grains, mask.shape, interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.multiply(mask, mottle, scale=1 / 255), np.uint8)

"""From attenuation to grey values: detector, processing, collimation and burnt-in marks."""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from cxrssl.data.phantom.canvas import Field, soft, wide_blur

__all__ = ["Style", "develop"]


class _Scanner(NamedTuple):
    """Habits of one kind of machine, about which single exposures vary."""

    gamma: float
    contrast: float
    equalisation: float
    sharpening: float
    noise: float
    blur: float
    grid: float


_SCANNERS = (
    _Scanner(1.0, 0.3, 0.10, 0.3, 0.008, 0.0, 0.0),  # flat panel, mild processing
    _Scanner(1.25, 0.7, 0.35, 0.6, 0.006, 0.0, 0.0),  # flat panel, strong processing
    _Scanner(0.85, 0.0, 0.0, 0.0, 0.016, 0.0012, 0.0),  # imaging plate, unprocessed
    _Scanner(0.75, 0.2, 0.0, 0.0, 0.020, 0.0022, 0.006),  # mobile unit with a grid
    _Scanner(1.4, 0.8, 0.0, 0.1, 0.012, 0.0018, 0.0),  # digitised film
)

_TEXTS = ("", "PORTABLE", "AP", "SUPINE", "ERECT", "PA", "AP PORTABLE", "STANDING")
_BEDSIDE_TEXTS, _STANDING_TEXTS = (0, 0, 1, 2, 3, 6), (0, 0, 0, 4, 5, 7)


@dataclass(frozen=True)
class Style:
    """How one exposure was taken and processed.

    Args:
        low: Attenuation that becomes black.
        high: Attenuation that becomes white.
        gamma: Exponent of the grey curve.
        contrast: Share of an S-shaped curve, in [0, 1].
        equalisation: Share of the coarse brightness that processing removes.
        sharpening: Weight of the fine detail that processing adds.
        noise: Standard deviation of the noise in attenuation.
        blur: Unsharpness, as a share of the side.
        grid: Amplitude of the lines of an anti-scatter grid.
        heel: (2,) rise of the exposure from one edge to the other, across and down.
        margins: (4,) unexposed borders left, top, right, bottom, as shares of the side.
        turn: Turn of the collimator in radians.
        shutter: Grey value of unexposed borders, in [0, 1].
        marker: Letters of the side marker.
        marker_at: (2,) its place as shares of the side.
        marker_size: Height of the letters as a share of the side.
        text: Burnt-in words.
        text_at: (2,) their place.
        ink: Grey value of marks, in [0, 1].
        stripe: Row of a defect of the detector as a share of the side; negative without.
    """

    low: float
    high: float
    gamma: float
    contrast: float
    equalisation: float
    sharpening: float
    noise: float
    blur: float
    grid: float
    heel: tuple[float, float]
    margins: tuple[float, float, float, float]
    turn: float
    shutter: float
    marker: str
    marker_at: tuple[float, float]
    marker_size: float
    text: str
    text_at: tuple[float, float]
    ink: float
    stripe: float

    @classmethod
    def sample(cls, rng: np.random.Generator, *, bedside: bool) -> "Style":
        """Draw a style; every call takes the same count of random numbers."""
        scanner = _SCANNERS[rng.integers(2, 5) if bedside else rng.integers(0, 5)]
        spread = rng.random(8)
        low = rng.uniform(0.0, 0.16)
        cropped = rng.random(4) < (0.3 if bedside else 0.22)
        left, top, right, bottom = (cropped * rng.uniform(0.01, 0.09, 4)).tolist()
        at_right = rng.random() < 0.85
        texts = _BEDSIDE_TEXTS if bedside else _STANDING_TEXTS
        return cls(
            low=low,
            high=low + rng.uniform(0.80, 1.1),
            gamma=scanner.gamma * (0.8 + 0.45 * spread[0]),
            contrast=min(1.0, scanner.contrast * (0.7 + 0.6 * spread[1])),
            equalisation=scanner.equalisation * (0.6 + 0.8 * spread[2]),
            sharpening=scanner.sharpening * (0.5 + spread[3]),
            noise=scanner.noise * (0.5 + 1.3 * spread[4]),
            blur=scanner.blur * (0.5 + spread[5]),
            grid=scanner.grid * (0.5 + spread[6]),
            heel=(rng.normal(0, 0.025), rng.normal(0, 0.03)),
            margins=(left, top, right, bottom),
            turn=float(np.clip(rng.normal(0, 0.012), -0.03, 0.03)),
            shutter=0.96 if spread[7] < 0.12 else 0.0,
            marker=("L" if at_right else "R") + str(rng.choice(["", "", "", " JM", "7"])),
            marker_at=(
                rng.uniform(0.86, 0.91) if at_right else rng.uniform(0.03, 0.09),
                rng.uniform(0.07, 0.25),
            ),
            marker_size=rng.uniform(0.035, 0.06),
            text=_TEXTS[texts[rng.integers(len(texts))]],
            text_at=(rng.uniform(0.02, 0.75), float(rng.choice([0.05, 0.97]))),
            ink=rng.uniform(0.8, 1.0),
            stripe=rng.random() if rng.random() < 0.03 else -1.0,
        )


def develop(loss: Field, style: Style, rng: np.random.Generator) -> Field:
    """Return the radiograph (S, S) in [0, 1], bones bright.

    The grey curve depends on the style alone, never on the image: a finding changes the image where
    it is, not everywhere.

    Args:
        loss: (S, S) attenuation.
        style: How the exposure was taken and processed.
        rng: Source of the noise.
    """
    side = loss.shape[0]
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    exposed = loss + np.float32(style.heel[0]) * ramp + np.float32(style.heel[1]) * ramp[:, None]
    if style.blur * side > 0.25:
        exposed = np.asarray(cv2.GaussianBlur(exposed, (0, 0), style.blur * side), np.float32)
    # Fewer photons come through where more are lost.
    grain = rng.standard_normal(loss.shape, dtype=np.float32)
    exposed += grain * (np.float32(style.noise) * (exposed + 0.35))
    if style.sharpening:
        detail = exposed - cv2.GaussianBlur(exposed, (0, 0), 0.012 * side)
        exposed += np.float32(style.sharpening) * detail
    if style.equalisation:
        exposed -= np.float32(style.equalisation) * (wide_blur(exposed, 0.09) - np.float32(0.5))
    grey = _tone(exposed, style)
    if style.grid:
        lines = np.sin(np.arange(side, dtype=np.float32) * np.float32(2 * np.pi / 3.3))
        grey += np.float32(style.grid) * lines
    _add_marks(grey, style)
    developed: Field = np.clip(grey, 0, 1, out=grey)
    return developed


def _tone(exposed: Field, style: Style) -> Field:
    grey = (exposed - np.float32(style.low)) * np.float32(1 / (style.high - style.low))
    grey = np.asarray(cv2.pow(np.clip(grey, 0, 1, out=grey), style.gamma), np.float32)
    if style.contrast:
        grey += np.float32(style.contrast) * (grey * grey * (3 - 2 * grey) - grey)
    return grey


def _add_marks(grey: Field, style: Style) -> None:
    side = grey.shape[0]
    if style.stripe >= 0:
        grey[int(style.stripe * side)] += np.float32(0.08)
    if any(style.margins):
        grey -= np.float32(style.shutter)
        grey *= _exposed_area(side, style)
        grey += np.float32(style.shutter)
    _write(grey, style.marker, style.marker_at, style.marker_size, style.ink)
    if style.text:
        _write(grey, style.text, style.text_at, 0.022, style.ink)


def _exposed_area(side: int, style: Style) -> Field:
    left, top, right, bottom = style.margins
    # An open side lies far outside, so that the turn leaves no wedge there.
    x0, y0 = left or -0.5, top or -0.5
    x1, y1 = 1 - right if right else 1.5, 1 - bottom if bottom else 1.5
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) - 0.5
    cos, sin = np.cos(style.turn), np.sin(style.turn)
    turned = (corners @ np.array([[cos, sin], [-sin, cos]]) + 0.5) * side - 0.5
    area = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(area, np.rint(turned * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    return soft(area, 1.0)


def _write(grey: Field, words: str, at: tuple[float, float], size: float, ink: float) -> None:
    """Write words whose capitals are ``size`` of the side tall."""
    side = grey.shape[0]
    layer = np.zeros(grey.shape, np.uint8)
    # Capitals of this font are 21 pixels tall at scale 1.
    scale = size * side / 21
    thick = max(1, round(0.18 * size * side))
    width = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)[0][0]
    origin = (min(round(at[0] * side), side - width), round(at[1] * side))
    cv2.putText(layer, words, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    grey += soft(layer, 1.0) * (np.float32(ink) - grey)

"""Branching pulmonary vessels."""

import numpy as np

from cxrssl.data.phantom.canvas import Points

__all__ = ["HILUM", "vessel_tree"]

HILUM = (0.24, 0.44)
"""Distance from the midline and height of a hilum."""

_ROOTS = 9
_LENGTHS = (0.26, 0.19, 0.15, 0.11)
WIDTHS = (0.050, 0.034, 0.022, 0.014)
"""Width of a vessel in each generation, in half-widths of the thorax."""


def vessel_tree(rng: np.random.Generator, aspect: float) -> list[Points]:
    """Return vessels of both lungs, one array of lines a generation, the largest first.

    Each branch bends a little and splits in two; a third branch leaves before its end.

    Args:
        rng: Source of the patient's own tree.
        aspect: Height of the lungs over the half-width of the thorax.

    Returns:
        Arrays (L, 4, 2), and (L, 2, 2) for the finest generation, which is straight.
    """
    fan = np.linspace(-1.35, 1.25, _ROOTS)
    fan = np.concatenate([fan, fan]) + rng.normal(0, 0.1, 2 * _ROOTS)
    side = np.repeat([-1.0, 1.0], _ROOTS)
    start = np.stack([np.full(2 * _ROOTS, HILUM[0]), HILUM[1] + 0.05 * np.sin(fan)], -1)
    generations = []
    for length in _LENGTHS:
        count = len(fan)
        reach = length * rng.uniform(0.7, 1.3, count)
        bend = rng.normal(0, 0.25, count)
        angle = fan[:, None] + bend[:, None] * (0.2, 0.6, 1.0)  # (L, 3)
        # Lower-lobe vessels are longer than those to the apex.
        step = reach[:, None] / 3 * (1 + 0.25 * np.sin(angle))
        path = np.stack([np.cos(angle) * step, np.sin(angle) * step / aspect * 1.15], -1)
        line = start[:, None] + np.concatenate([np.zeros((count, 1, 2)), path.cumsum(1)], 1)
        generations.append(line * np.stack([side, np.ones(count)], -1)[:, None])
        spread = rng.uniform(0.2, 0.55, (3, count)) * np.array([[1], [-1], [1]])
        spread[2] *= np.where(rng.random(count) < 0.5, 1.6, -1.6)
        fan = (fan + bend + spread).ravel()
        start = np.concatenate([line[:, 3], line[:, 3], line[:, 2]])
        side = np.tile(side, 3)
    generations[-1] = generations[-1][:, ::3]
    return generations

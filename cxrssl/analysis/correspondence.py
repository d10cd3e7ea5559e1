"""Which patch of one radiograph is most like a patch of another, as in RAD-DINO's figure 3."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from cxrssl.analysis.axes import own_axes, show_image
from cxrssl.analysis.resampling import patient_numbers, patient_weights, percentile_interval
from cxrssl.analysis.unit import unit_length
from cxrssl.errors import InputError

__all__ = [
    "TokenCodes",
    "best_match",
    "encode_tokens",
    "landmark_errors",
    "patch_at",
    "patch_similarity",
    "plot_correspondence",
]

_LEVELS = 127
_LEVEL, _FEWEST = 0.95, 5


class TokenCodes(NamedTuple):
    """Patch tokens in few bytes; cosine similarities are those of the tokens but for rounding."""

    codes: NDArray[np.int8]
    """(M, N, k)."""
    kept: float
    """Share of the tokens' squared length along the k directions that are kept."""


def patch_at(
    point: tuple[float, float], grid: tuple[int, int], size: tuple[float, float] = (1.0, 1.0)
) -> int:
    """Return the number of the patch, row by row, that a point is in.

    Args:
        point: x from the left and y from the top.
        grid: Rows and columns (h, w) of the patches.
        size: Width and height of the image, in the unit of the point.

    Raises:
        InputError: If the point is outside the image.
    """
    (x, y), (width, height), (rows, columns) = point, size, grid
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"the point {point} is outside the image of {width} x {height}")
    return int(y / height * rows) * columns + int(x / width * columns)


def patch_similarity(
    query: NDArray[np.floating], patches: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the cosine similarities (..., N) of a token (D,) to patch tokens (..., N, D)."""
    return unit_length(patches) @ unit_length(query)


def best_match(query: NDArray[np.floating], patches: NDArray[np.floating]) -> int:
    """Return the number of the patch token, of (N, D), that is most like a token (D,)."""
    return int(patch_similarity(query, patches).argmax())


def encode_tokens(patches: NDArray[np.floating], width: int = 96) -> TokenCodes:
    """Return patch tokens as bytes, for a page that compares any two of them.

    Tokens are brought to unit length, turned to their main directions (without centring, so that
    cosines stay), of which at most ``width`` are kept, and rounded to 255 levels.

    Args:
        patches: (M, N, D).
        width: Most numbers k of a token.

    Raises:
        InputError: If ``width`` is not positive or a token is not finite.
    """
    if width < 1 or not np.isfinite(patches).all():
        raise InputError(f"width must be positive and all tokens finite, got width {width}")
    unit = unit_length(patches)
    flat = unit.reshape(-1, unit.shape[-1])
    power, directions = np.linalg.eigh(flat.T @ flat)
    turned = unit @ directions[:, ::-1][:, :width]
    scale = _LEVELS / max(float(np.abs(turned).max()), 1e-12)
    total = max(float(power.sum()), 1e-12)
    kept = float(power[::-1][:width].sum()) / total
    return TokenCodes(np.rint(turned * scale).astype(np.int8), min(kept, 1.0))


def landmark_errors(
    patches: NDArray[np.floating],
    grid: tuple[int, int],
    points: Sequence[Mapping[str, tuple[float, float]]],
    *,
    patients: Iterable[object] | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how far the best match of a landmark is from the same landmark in other patients.

    The match of the patch that a landmark of one image is in is the centre of the most similar
    patch of another image; the error is its distance to the landmark there. What any encoder has to
    beat is the distance of the ``same place``: the landmark's own coordinates in the other image.

    Args:
        patches: Patch tokens (M, N, D).
        grid: Rows and columns (h, w) of the patches, h * w = N.
        points: Landmarks of each of the M images, x and y in shares of the image, in [0, 1).
        patients: Of each image; no pair of one patient counts. Each image is one if None.
        replicates: Resamples of patients for the 95 % intervals.
        seed: Of the resamples.

    Returns:
        A row for each landmark that two patients have: ``landmark``, ``value``, ``low`` and
        ``high`` (NaN with fewer than five patients), ``same place``, ``chance`` (of a patch drawn
        at random), all as shares of the image's side, ``pairs`` and ``images``.
    """
    owners = patient_numbers(range(len(patches)) if patients is None else patients)
    weights = patient_weights(owners, replicates, np.random.default_rng(seed)).astype(np.float64)
    unit, centres = unit_length(patches), _centres(grid)
    rows = []
    for name in dict.fromkeys(name for of_image in points for name in of_image):
        having = [number for number, of_image in enumerate(points) if name in of_image]
        pairs = [(a, b) for a in having for b in having if owners[a] != owners[b]]
        if not pairs:
            continue
        errors = np.array([_errors(unit, centres, grid, points, name, *pair) for pair in pairs])
        first, second = np.array(pairs).T
        drawn = weights[:, first] * weights[:, second]
        total = drawn.sum(1)
        resampled = np.divide(
            drawn @ errors[:, 0], total, out=np.full(replicates, np.nan), where=total > 0
        )
        low, high = percentile_interval(resampled[None], _LEVEL)[:, 0]
        if len(np.unique(owners[having])) < _FEWEST:
            low = high = np.nan
        rows.append((name, errors[:, 0].mean(), low, high, *errors[:, 1:].mean(0), len(pairs),
                     len(having)))  # fmt: skip
    columns = ["landmark", "value", "low", "high", "same place", "chance", "pairs", "images"]
    return pd.DataFrame(rows, columns=columns)


def plot_correspondence(
    image: NDArray[np.floating],
    similarity: NDArray[np.floating],
    ax: Axes | None = None,
    *,
    point: tuple[float, float] | None = None,
    colour: str = "#22d3ee",
) -> Axes:
    """Show how alike a token is to each patch of a radiograph, and return the axes.

    Similarities are shown from their median to their maximum; a ring marks the best match.

    Args:
        image: (H, W) in [0, 1].
        similarity: (h, w) of one token to each patch.
        ax: Axes to draw on; those of a new figure if None.
        point: Where the right place is, x and y in shares of the image, for a cross if known.
        colour: Of ring and cross.
    """
    axes = own_axes(ax, 2.4, 2.4)
    height, width = image.shape
    show_image(axes, image)
    heat = cv2.resize(similarity.astype(np.float32), (width, height))
    low, high = float(np.median(similarity)), float(similarity.max())
    strength = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
    axes.imshow(strength, cmap="inferno", alpha=0.65 * strength, vmin=0, vmax=1)
    rows, columns = similarity.shape
    row, column = divmod(int(similarity.argmax()), columns)
    centre = (column + 0.5) / columns * width, (row + 0.5) / rows * height
    style: dict[str, Any] = {"color": colour, "mew": 2.2, "ms": 13}
    axes.plot(*centre, marker="o", mfc="none", **style)
    if point is not None:
        axes.plot(point[0] * width, point[1] * height, marker="x", **style)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return axes


def _errors(
    unit: NDArray[np.float64],
    centres: NDArray[np.float64],
    grid: tuple[int, int],
    points: Sequence[Mapping[str, tuple[float, float]]],
    name: str,
    first: int,
    second: int,
) -> tuple[float, float, float]:
    """Return the errors of the match, of the same place, and of a random patch."""
    asked, wanted = points[first][name], points[second][name]
    found = best_match(unit[first, patch_at(asked, grid)], unit[second])
    distances = np.hypot(*(centres - wanted).T)
    same = float(np.hypot(asked[0] - wanted[0], asked[1] - wanted[1]))
    return float(distances[found]), same, float(distances.mean())


def _centres(grid: tuple[int, int]) -> NDArray[np.float64]:
    """Return x and y (N, 2) of the patches' centres, in shares of the image."""
    rows, columns = (np.arange(side) + 0.5 for side in grid)
    y, x = np.meshgrid(rows / grid[0], columns / grid[1], indexing="ij")
    return np.column_stack([x.ravel(), y.ravel()])

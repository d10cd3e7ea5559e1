"""Block masks over the patch grid, as DINOv2 draws them for masked image modelling."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["BlockMasking", "Draws"]

TRIES = 10


class Draws(Protocol):
    """The random draws that masking makes, one number at a time.

    ``uniform`` takes its bounds in either order, which numpy's generator does not promise.
    """

    def uniform(self, low: float, high: float, /) -> float:
        """Return ``low + (high - low) * u`` with u uniform in [0, 1)."""

    def integers(self, low: int, high: int, /, *, endpoint: bool) -> int:
        """Return a whole number from low to high, inclusive with ``endpoint``."""

    def permutation(self, n: int, /) -> Sequence[int]:
        """Return the numbers below n in random order."""


class GeneratorDraws:
    """Serves single draws out of blocks from a numpy generator.

    Numpy spends about a microsecond on a call whatever its size, and a batch of masks needs
    thousands of draws that depend on each other.
    """

    def __init__(self, rng: np.random.Generator, block: int = 1024) -> None:
        self._rng = rng
        self._block = block
        self._pending: list[float] = []

    def _unit(self) -> float:
        if not self._pending:
            self._pending = self._rng.random(self._block).tolist()
        return self._pending.pop()

    def uniform(self, low: float, high: float, /) -> float:
        return low + (high - low) * self._unit()

    def integers(self, low: int, high: int, /, *, endpoint: bool) -> int:
        return low + int((high - low + endpoint) * self._unit())

    def permutation(self, n: int, /) -> Sequence[int]:
        order: list[int] = self._rng.permutation(n).tolist()
        return order


class BlockMasking:
    """Draws masks made of rectangles, as DINOv2 (arXiv 2304.07193) and BEiT do.

    Rectangles of random area and aspect are united until the wanted number of patches is masked or
    ten rectangles in a row do not fit. A mask never exceeds its target; it misses it in about one
    draw in ten, mostly by one patch. Since a rectangle lies inside the grid, the centre is masked
    far more often than the corners.

    Args:
        grid: Rows and columns (H, W) of patches.
        ratio: Smallest and largest share of the patches that a masked crop loses.
        probability: Share of the crops of a batch that are masked.
        exact: Top each mask up with single random patches to its target, and take the targets
            evenly spaced instead of uniform between those points, as DINOv3 (arXiv 2508.10104).
        shift: Shift each mask circularly by a random offset, which removes the bias to the centre.
            An option of DINOv3.
        min_patches: Smallest area of a rectangle, in patches, while so many are still to be masked.
        max_patches: Largest area of a rectangle. ``None``: half of the rows, rounded down, times
            the columns, which is what the released code passes (666 of 37 x 37, not 684).
        min_aspect: Smallest height / width of a rectangle; the largest is its inverse.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        *,
        ratio: tuple[float, float] = (0.1, 0.5),
        probability: float = 0.5,
        exact: bool = False,
        shift: bool = False,
        min_patches: int = 4,
        max_patches: int | None = None,
        min_aspect: float = 0.3,
    ) -> None:
        height, width = grid
        if height < 1 or width < 1:
            raise InputError(f"the grid needs at least one row and one column, got {grid}")
        if not 0 <= ratio[0] <= ratio[1] <= 1:
            raise InputError(
                f"mask ratio must be (low, high) with 0 <= low <= high <= 1, got {ratio}"
            )
        if not 0 <= probability <= 1:
            raise InputError(f"mask probability must be in [0, 1], got {probability}")
        if not 0 < min_aspect <= 1:
            raise InputError(f"min_aspect must be in (0, 1], got {min_aspect}")
        self.grid = (height, width)
        self.ratio = ratio
        self.probability = probability
        self.exact = exact
        self.shift = shift
        self.min_patches = min_patches
        self.max_patches = height // 2 * width if max_patches is None else max_patches
        self._log_aspect = math.log(min_aspect), math.log(1 / min_aspect)
        # Patch (row, column) is bit row * W + column of a whole number, so that uniting and
        # counting cost one operation each. Entry h has the first bit of each of h rows set.
        self._first_column = [sum(1 << row * width for row in range(h)) for h in range(height)]

    def __call__(self, target: int, rng: Draws | np.random.Generator) -> NDArray[np.bool_]:
        """Draw one mask.

        Args:
            target: Number of patches to mask.
            rng: Source of every draw.

        Returns:
            (H, W), True where the patch is masked.

        Raises:
            InputError: The target is negative or larger than the grid.
        """
        height, width = self.grid
        if not 0 <= target <= height * width:
            raise InputError(
                f"cannot mask {target} patches of a grid of {height} x {width} patches"
            )
        draws = GeneratorDraws(rng) if isinstance(rng, np.random.Generator) else rng
        bits, missing = 0, target
        while missing > 0:
            block = self._draw_block(bits, min(missing, self.max_patches), draws)
            if not block:
                break
            bits |= block
            missing = target - bits.bit_count()
        mask = _unpack(bits, height * width)
        if self.exact and missing > 0:
            free = np.flatnonzero(~mask)
            mask[free[np.asarray(draws.permutation(len(free)))[:missing]]] = True
        mask = mask.reshape(height, width)
        if self.shift and target > 0:
            offset = (
                draws.integers(0, height - 1, endpoint=True),
                draws.integers(0, width - 1, endpoint=True),
            )
            mask = np.roll(mask, offset, axis=(0, 1))
        return mask

    def collate_masks(self, n_crops: int, rng: Draws | np.random.Generator) -> NDArray[np.bool_]:
        """Draw the masks of all global crops of a batch.

        ``int(n_crops * probability)`` crops are masked. Their targets cover the range of ratios
        evenly: the range is cut into as many intervals, and each crop draws its ratio from one of
        them. Which crops these are is random over the whole batch, so of the crops of one image
        all, some or none may be masked.

        Args:
            n_crops: Number of crops M, over all images of the batch.
            rng: Source of every draw.

        Returns:
            (M, N) with N = H W, True where the patch is masked.
        """
        draws = GeneratorDraws(rng) if isinstance(rng, np.random.Generator) else rng
        n_patches = self.grid[0] * self.grid[1]
        n_masked = int(n_crops * self.probability)
        edges = np.linspace(*self.ratio, n_masked + 1).tolist()
        masks = np.zeros((n_crops, n_patches), dtype=np.bool_)
        for index, (low, high) in enumerate(pairwise(edges)):
            share = high if self.exact else draws.uniform(low, high)
            masks[index] = self(int(n_patches * share), draws).reshape(-1)
        return masks[np.asarray(draws.permutation(n_crops), dtype=np.intp)]

    def _draw_block(self, bits: int, limit: int, draws: Draws) -> int:
        """Return the bits of a rectangle that adds 1 to ``limit`` patches; 0 after ten misses."""
        height, width = self.grid
        for _ in range(TRIES):
            area = draws.uniform(self.min_patches, limit)
            aspect = math.exp(draws.uniform(*self._log_aspect))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if rows >= height or columns >= width:
                continue
            top = draws.integers(0, height - rows, endpoint=True)
            left = draws.integers(0, width - columns, endpoint=True)
            row = (1 << columns) - 1
            block = row * self._first_column[rows] << top * width + left
            if 0 < (block & ~bits).bit_count() <= limit:
                return block
        return 0


def _unpack(bits: int, n: int) -> NDArray[np.bool_]:
    """Return the lowest n bits as a bool array (n,), lowest first."""
    packed = np.frombuffer(bits.to_bytes(-(-n // 8), "little"), dtype=np.uint8)
    return np.unpackbits(packed, count=n, bitorder="little").view(np.bool_)

"""Context and target blocks of patches, as I-JEPA and CheXWorld draw them."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError
from cxrssl.views.base import check_range

__all__ = ["BlockSampler", "MultiBlockMasking", "block_masks", "block_size"]

BlockSampler = Literal["ijepa", "corrected"]

TRIES = 20


class BlockLaw(NamedTuple):
    """Smallest and largest area, as shares of the grid, and aspects height / width of a block."""

    scale: tuple[float, float]
    ratio: tuple[float, float]


def block_size(
    grid: tuple[int, int],
    law: BlockLaw,
    numbers: tuple[float, float],
    sampler: BlockSampler = "corrected",
) -> tuple[int, int]:
    """Return the height and width in patches of the block that two random numbers stand for.

    The first number in [0, 1) picks the area between the bounds of the law. In ``"corrected"`` the
    second picks the aspect between the logarithms of its bounds, and a side is at most the grid's;
    in ``"ijepa"`` the first number picks the aspect as well, linearly, the second has no effect,
    and a side is at most the grid's less one.

    Args:
        grid: Rows and columns (H, W) of patches.
        law: Bounds of area and aspect.
        numbers: Two numbers in [0, 1).
        sampler: Which law of the class :class:`MultiBlockMasking`.
    """
    first, second = numbers
    (low, high), (flat, tall) = law
    area = int(grid[0] * grid[1] * (low + first * (high - low)))
    if sampler == "ijepa":
        aspect = flat + first * (tall - flat)
    else:
        aspect = math.exp(math.log(flat) + second * (math.log(tall) - math.log(flat)))
    unused = int(sampler == "ijepa")
    return (
        min(max(1, round(math.sqrt(area * aspect))), grid[0] - unused),
        min(max(1, round(math.sqrt(area / aspect))), grid[1] - unused),
    )


def block_masks(
    grid: tuple[int, int], size: tuple[int, int], corners: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return the patches of blocks of one size.

    Args:
        grid: Rows and columns (H, W) of patches.
        size: Height and width of every block in patches.
        corners: Top row and left column of each block, (..., 2).

    Returns:
        (..., N) with N = H W in row-major order, True inside the block.
    """
    rows, columns = (
        (np.arange(n) >= corner[..., None]) & (np.arange(n) < corner[..., None] + side)
        for n, side, corner in zip(grid, size, np.moveaxis(corners, -1, 0), strict=True)
    )
    blocks: NDArray[np.bool_] = rows[..., :, None] & columns[..., None, :]
    return blocks.reshape(*corners.shape[:-1], -1)


class MultiBlockMasking:
    """Draws which patches the context encoder sees and which the predictor must tell.

    A context is a large square block without the patches of its target blocks. All images of a
    batch share the size of the target blocks and that of the contexts; the places are each image's
    own. Then every context loses patches until it has as many as the smallest of the batch, and the
    target sets likewise, so that a batch is one tensor without padding.

    Samplers:
        ``"ijepa"`` is the law of the released code of I-JEPA (arXiv 2301.08243): one random number
        sets both area and aspect, which is linear; a side is at most the grid's less one, and the
        last row and column are never used.

        ``"corrected"`` is that of CheXWorld (arXiv 2504.13820): area and logarithm of the aspect
        are independent, and every place in the grid can be drawn.

    A context of at most ``min_keep`` patches is placed again; after 20 tries it may overlap its
    last target block, after 20 more its last two, and so on. A block size of at most ``min_keep``
    patches is drawn again; after 20 tries the largest is taken. Both happen before ``max_keep``
    shortens the sets.

    On a coarse grid the target blocks of an image may together leave too little room, and its
    context then overlaps some of them. Sizes are refused under which a single target block can
    leave too little room wherever it lies: every context of such a batch would overlap its targets.

    Args:
        grid: Rows and columns (H, W) of patches.
        context_scale: Smallest and largest area of a context block, as a share of the grid.
        target_scale: Smallest and largest area of a target block, as a share of the grid.
        target_ratio: Smallest and largest height / width of a target block.
        n_contexts: Contexts E of an image.
        n_targets: Target blocks of an image, or of a context if they are not shared.
        sampler: Law of sizes and places.
        shared_targets: Whether the contexts of an image share the target blocks (I-JEPA), or each
            has blocks of its own (CheXWorld).
        merge: Unite the target blocks that belong together into one target set.
        min_keep: Blocks and contexts have more patches than this when they are drawn.
        max_keep: Largest length of contexts and of target sets. ``None`` sets no bound. It cuts
            what was drawn, so that with ``max_keep <= min_keep`` all sets have ``max_keep``
            patches.
        random_keep: Which patches stay when a set is shortened: a random choice, or the first in
            row-major order as published, which favours the top of the image.

    Raises:
        InputError: An option is out of range, no block has more than ``min_keep`` patches, or a
            target block can leave a context of no more.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        *,
        context_scale: tuple[float, float] = (0.85, 1.0),
        target_scale: tuple[float, float] = (0.15, 0.2),
        target_ratio: tuple[float, float] = (0.75, 1.5),
        n_contexts: int = 1,
        n_targets: int = 4,
        sampler: BlockSampler = "ijepa",
        shared_targets: bool = True,
        merge: bool = False,
        min_keep: int = 10,
        max_keep: int | None = None,
        random_keep: bool = False,
    ) -> None:
        _check_laws(context_scale, target_scale, target_ratio)
        if sampler not in ("ijepa", "corrected"):
            raise InputError(f"sampler must be 'ijepa' or 'corrected', got {sampler!r}")
        if n_contexts < 1 or n_targets < 1:
            raise InputError(
                f"n_contexts and n_targets must be positive, got {n_contexts} and {n_targets}"
            )
        if min_keep < 0 or (max_keep is not None and max_keep < 1):
            raise InputError(
                "min_keep must not be negative and max_keep must be positive or None, got "
                f"{min_keep} and {max_keep}"
            )
        smallest = 2 if sampler == "ijepa" else 1
        if min(grid) < smallest:
            raise InputError(
                f"the grid needs at least {smallest} rows and columns of patches with "
                f"sampler={sampler!r}, got {grid}"
            )
        self.grid = grid
        self._usable = grid if sampler == "corrected" else (grid[0] - 1, grid[1] - 1)
        self.n_contexts = n_contexts
        self.n_targets = n_targets
        self.sampler: BlockSampler = sampler
        self.shared_targets = shared_targets
        self.merge = merge
        self.min_keep = min_keep
        self.max_keep = grid[0] * grid[1] if max_keep is None else max_keep
        self.random_keep = random_keep
        self._context_law = BlockLaw(context_scale, (1.0, 1.0))
        self._target_law = BlockLaw(target_scale, target_ratio)
        context_sizes = self._sizes("context", self._context_law)
        target_sizes = self._sizes("target", self._target_law)
        self._check_room(context_sizes, target_sizes)
        self._largest_context = max(context_sizes, key=math.prod)
        self._largest_target = max(target_sizes, key=math.prod)

    def collate_masks(
        self, n_images: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the sets of all images of a batch.

        Args:
            n_images: Number of images B.
            rng: Source of every draw.

        Returns:
            Patches of the contexts (B, E, Kc) and of the target sets (B, P, Kt), as numbers row * W
            + column in rising order. P is ``n_targets`` if the targets are shared, and E times that
            in context-major order if not; a merged set counts once.
        """
        target_size = self._draw_size(self._target_law, self._largest_target, rng)
        context_size = self._draw_size(self._context_law, self._largest_context, rng)
        groups = 1 if self.shared_targets else self.n_contexts
        corners = self._draw_corners(target_size, (n_images, groups, self.n_targets), rng)
        targets = block_masks(self.grid, target_size, corners)
        contexts = self.draw_contexts(context_size, targets, rng)
        return self.index_sets(contexts, targets, rng)

    def draw_contexts(
        self, size: tuple[int, int], targets: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.bool_]:
        """Place the contexts of a batch beside their target blocks.

        Args:
            size: Height and width of the context blocks in patches.
            targets: Target blocks (B, E or 1, n_targets, N).
            rng: Source of every draw.

        Returns:
            (B, E, N), True where the context sees a patch.
        """
        n_images, _, n_targets, n_patches = targets.shape
        # Entry t is the union of all target blocks but the last t.
        unions = np.logical_or.accumulate(targets, axis=2)[:, :, ::-1]
        unions = np.concatenate([unions, np.zeros_like(unions[:, :, :1])], axis=2)
        unions = np.broadcast_to(unions, (n_images, self.n_contexts, *unions.shape[2:]))
        unions = unions.reshape(-1, n_targets + 1, n_patches)
        contexts = np.empty((len(unions), n_patches), dtype=np.bool_)
        open_ = np.arange(len(unions))
        for attempt in range(TRIES * n_targets + 1):
            corners = self._draw_corners(size, (len(open_),), rng)
            drawn = block_masks(self.grid, size, corners) & ~unions[open_, attempt // TRIES]
            contexts[open_] = drawn
            open_ = open_[np.count_nonzero(drawn, axis=1) <= self.min_keep]
            if not open_.size:
                break
        return contexts.reshape(n_images, self.n_contexts, n_patches)

    def index_sets(
        self,
        contexts: NDArray[np.bool_],
        targets: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Turn the blocks of a batch into sets of one length.

        Args:
            contexts: (B, E, N), True where a context sees a patch.
            targets: Target blocks (B, E or 1, n_targets, N).
            rng: Source of the draws that ``random_keep`` makes.

        Returns:
            See :meth:`collate_masks`.
        """
        if self.merge:
            wanted = np.logical_or.reduce(targets, axis=2)
        else:
            wanted = targets.reshape(len(targets), -1, targets.shape[-1])
        return self._shorten(contexts, rng), self._shorten(wanted, rng)

    def _shorten(self, masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return (B, S, K): as many patches of each of the masks (B, S, N) as all of them have."""
        keep = min(int(np.count_nonzero(masks, axis=-1).min()), self.max_keep)
        if self.random_keep:
            # The patches of a mask come before all others, in random order.
            keys = rng.random(masks.shape) + ~masks
            return np.sort(np.argsort(keys, axis=-1)[..., :keep], axis=-1)
        kept = masks & (np.cumsum(masks, axis=-1) <= keep)
        return np.nonzero(kept)[-1].reshape(*masks.shape[:-1], keep)

    def _draw_size(
        self, law: BlockLaw, largest: tuple[int, int], rng: np.random.Generator
    ) -> tuple[int, int]:
        for _ in range(TRIES):
            first, second = rng.random(2).tolist()
            height, width = block_size(self.grid, law, (first, second), self.sampler)
            if height * width > self.min_keep:
                return height, width
        return largest

    def _draw_corners(
        self, size: tuple[int, int], shape: tuple[int, ...], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Return the top row and left column (*shape, 2) of blocks anywhere in the grid."""
        # A block that fills the usable part has the one corner 0.
        ends = [n - side + 1 for n, side in zip(self._usable, size, strict=True)]
        return rng.integers(ends, size=(*shape, 2))

    def _sizes(self, name: str, law: BlockLaw) -> list[tuple[int, int]]:
        """Return the block sizes with more than ``min_keep`` patches; raise if there are none."""
        shares = np.linspace(0, 1, 33).tolist()
        # Without repeats, in the order drawn: the first of several largest sizes stays the same.
        sizes = list(
            dict.fromkeys(
                block_size(self.grid, law, (first, second), self.sampler)
                for first in shares
                for second in shares
            )
        )
        most = max(map(math.prod, sizes))
        if most <= self.min_keep:
            raise InputError(
                f"{name} blocks of a grid of {self.grid[0]} x {self.grid[1]} patches with "
                f"{name}_scale = {law.scale} have at most {most} patches, which is "
                f"not more than min_keep = {self.min_keep}; lower min_keep, raise {name}_scale, "
                "or use a finer grid"
            )
        return [size for size in sizes if math.prod(size) > self.min_keep]

    def _check_room(
        self, contexts: Sequence[tuple[int, int]], targets: Sequence[tuple[int, int]]
    ) -> None:
        """Refuse sizes of blocks of which no places give a context beside its target."""
        left, context, target = min(
            (self._most_left(context, target), context, target)
            for context in contexts
            for target in targets
        )
        if left <= self.min_keep:
            raise InputError(
                f"a target block of {target[0]} x {target[1]} patches leaves at most {left} of a "
                f"context block of {context[0]} x {context[1]} on a grid of {self.grid[0]} x "
                f"{self.grid[1]} with sampler={self.sampler!r}, which is not more than min_keep = "
                f"{self.min_keep}; use a finer grid, lower target_scale = "
                f"{self._target_law.scale}, raise context_scale = {self._context_law.scale}, or "
                "lower min_keep"
            )

    def _most_left(self, context: tuple[int, int], target: tuple[int, int]) -> int:
        """Return the patches of a context block outside a target block in the opposite corner."""
        common = [
            max(0, own + other - end)
            for own, other, end in zip(context, target, self._usable, strict=True)
        ]
        return math.prod(context) - math.prod(common)


def _check_laws(
    context_scale: tuple[float, float],
    target_scale: tuple[float, float],
    target_ratio: tuple[float, float],
) -> None:
    for name, (low, high) in (("context_scale", context_scale), ("target_scale", target_scale)):
        if not 0 < low <= high <= 1:
            raise InputError(
                f"{name} must be (low, high) with 0 < low <= high <= 1, got {(low, high)}"
            )
    check_range("target_ratio", target_ratio, zero=False)

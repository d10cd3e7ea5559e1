"""All pairs of hashes that differ in a few bits, without comparing each with each."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

__all__ = ["close_pairs"]

_PARTS = 7
_BITS = 64
_AT_ONCE = 2**22
"""Pairs that are compared at once; 100 bytes each."""

Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]


def close_pairs(left: Hashes, right: Hashes, distance: int = 4) -> tuple[Numbers, Numbers]:
    """Return all pairs i < j where hash i of the left and hash j of the right are close.

    Bits are dealt out to seven parts. Two hashes that differ in at most ``distance`` bits agree in
    at least ``7 - distance`` whole parts (pigeonhole principle), so only those that agree in some
    choice of as many parts are compared. Of the hashes of radiographs, whose bits are not
    independent, this leaves one pair in two thousand; five parts of which one agrees leave
    one in a hundred.

    Args:
        left: Hashes (n,).
        right: Hashes (n,) of the same images, the same ones or those of a changed copy.
        distance: Most bits that differ, at most 6.

    Returns:
        i and j (m,) of the pairs, each once, ordered by i and then j.
    """
    found = [
        _agreeing(left, right, _mask(parts), distance)
        for parts in combinations(range(_PARTS), _PARTS - distance)
    ]
    n = np.int64(max(len(left), 1))
    codes = np.unique(np.concatenate([i * n + j for i, j in found]))
    return codes // n, codes % n


def _mask(parts: tuple[int, ...]) -> np.uint64:
    """Return the bits of some parts; neighbouring bits, which go together, are in several."""
    return np.uint64(sum(1 << bit for bit in range(_BITS) if bit % _PARTS in parts))


def _agreeing(
    left: Hashes, right: Hashes, mask: np.uint64, distance: int
) -> tuple[Numbers, Numbers]:
    """Return the close pairs i < j that agree in the bits of a mask."""
    order_left, order_right = np.argsort(left & mask), np.argsort(right & mask)
    keys_left, keys_right = left[order_left] & mask, right[order_right] & mask
    first = np.searchsorted(keys_right, keys_left, side="left")
    count = np.searchsorted(keys_right, keys_left, side="right") - first
    pairs: tuple[list[Numbers], list[Numbers]] = ([], [])
    for rows, places in _ragged(first, count):
        i, j = order_left[rows], order_right[places]
        close = (i < j) & (np.bitwise_count(left[i] ^ right[j]) <= distance)
        pairs[0].append(i[close])
        pairs[1].append(j[close])
    nothing = np.zeros(0, dtype=np.int64)
    return np.concatenate([nothing, *pairs[0]]), np.concatenate([nothing, *pairs[1]])


def _ragged(first: Numbers, count: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield row numbers and the places first, first + 1, ... of each row, not too many at once."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if ends.size else 0
    for start in range(0, total, _AT_ONCE):
        numbers = np.arange(start, min(start + _AT_ONCE, total))
        rows = np.searchsorted(ends, numbers, side="right")
        yield rows, first[rows] + numbers - (ends[rows] - count[rows])

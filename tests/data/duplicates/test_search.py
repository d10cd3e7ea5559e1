import numpy as np
import pytest

from cxrssl.data.duplicates import search
from cxrssl.data.duplicates.search import close_pairs


def brute_force(left, right, distance):
    close = np.bitwise_count(left[:, None] ^ right) <= distance
    return np.nonzero(np.triu(close, 1))


def hashes(n, seed=0, centres=20):
    """Return hashes in groups whose members differ in some bits."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**63, centres, dtype=np.uint64)[rng.integers(0, centres, n)]
    flips = np.zeros(n, np.uint64)
    for _ in range(5):
        flips ^= np.uint64(1) << rng.integers(0, 64, n).astype(np.uint64)
    return base ^ flips * (rng.random(n) < 0.7)


@pytest.mark.parametrize("distance", [0, 1, 4, 6])
def test_all_close_pairs_are_found_once_in_order(distance):
    left, right = hashes(400), hashes(400, seed=1)
    for other in (left, right):
        found, expected = close_pairs(left, other, distance), brute_force(left, other, distance)
        np.testing.assert_array_equal(found, expected)
    assert len(close_pairs(left, left, distance)[0]) > 100


def test_pieces_that_are_compared_at_once_do_not_matter(monkeypatch):
    values = hashes(200)
    expected = close_pairs(values, values)
    monkeypatch.setattr(search, "_AT_ONCE", 7)
    np.testing.assert_array_equal(
        close_pairs(values[:60], values[:60]), brute_force(*2 * (values[:60],), 4)
    )
    monkeypatch.setattr(search, "_AT_ONCE", 1000)
    np.testing.assert_array_equal(close_pairs(values, values), expected)


def test_few_hashes():
    for n in (0, 1):
        values = hashes(n)
        assert [len(numbers) for numbers in close_pairs(values, values)] == [0, 0]

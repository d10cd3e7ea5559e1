import numpy as np
import pytest

from cxrssl.analysis.world_geometry import offset_lengths, outside_distances, place_patches
from tests.analysis.worlds import PATCH, SIDE, WorldOfNumbers, world_image


def place(*offset):
    rows, columns = place_patches(np.array([offset], dtype=np.float32), 4)
    return rows.reshape(4, 4), columns.reshape(4, 4)


def test_a_crop_half_a_side_below_and_a_quarter_to_the_left():
    rows, columns = place(0.5, -0.25, 0, 9)
    np.testing.assert_array_equal(rows, np.array([[2, 3, 4, 5]] * 4).T)
    np.testing.assert_array_equal(columns, [[-1, 0, 1, 2]] * 4)
    # Rows 2 and 3 are inside, their centres 1.5 and 0.5 from the lower border; the first column
    # is half a patch outside on the left.
    np.testing.assert_allclose(
        outside_distances(rows, columns, 4),
        [
            [0.5, -0.5, -1.5, -1.5],
            [0.5, -0.5, -0.5, -0.5],
            [np.hypot(0.5, 0.5), 0.5, 0.5, 0.5],
            [np.hypot(1.5, 0.5), 1.5, 1.5, 1.5],
        ],
    )


def test_a_mirrored_crop_in_the_same_place_reads_backwards():
    rows, columns = place(0, 7, 1, 1)
    np.testing.assert_array_equal(columns, [[3, 2, 1, 0]] * 4)
    assert outside_distances(rows, columns, 4).max() == -0.5


def test_a_mirrored_crop_half_a_side_to_the_right():
    _, columns = place(0, 7, 1, 1.5)
    np.testing.assert_array_equal(columns, [[5, 4, 3, 2]] * 4)
    np.testing.assert_array_equal(
        outside_distances(*place(0, 7, 1, 1.5), 4)[0], [1.5, 0.5, -0.5, -0.5]
    )


def test_lengths_are_those_between_centres():
    offset = np.array([[0.3, 0.4, 0, 9], [0.3, 9, 1, 1.4], [0, 9, 1, 0.5]], dtype=np.float32)
    np.testing.assert_allclose(offset_lengths(offset), [0.5, 0.5, 0.5], rtol=1e-6)
    # The same from the patches' own places.
    rows, columns = place_patches(offset, 4)
    centres = np.stack([rows.mean(1), columns.mean(1)]) - 1.5
    np.testing.assert_allclose(np.hypot(*centres) / 4, offset_lengths(offset), rtol=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_patches_are_where_the_context_shows_the_same_number(seed):
    image = world_image(0, side=8)
    pair = WorldOfNumbers().crop_pair(image, np.random.default_rng(seed))
    first, second = (crop[::PATCH, ::PATCH] for crop in pair.crops)
    rows, columns = place_patches(pair.offset[1:], SIDE)
    inside = outside_distances(rows, columns, SIDE)[0] <= 0
    rows, columns = (np.rint(axis[0, inside]).astype(int) for axis in (rows, columns))
    np.testing.assert_array_equal(first[rows, columns], second.ravel()[inside])
    both = np.intersect1d(first, second)
    assert inside.sum() == len(both) > 0

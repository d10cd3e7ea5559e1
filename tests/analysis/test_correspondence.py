import numpy as np
import pytest

from cxrssl.analysis.correspondence import (
    best_match,
    encode_tokens,
    landmark_errors,
    patch_at,
    patch_similarity,
    plot_correspondence,
)
from cxrssl.errors import InputError


def tokens(images=3, patches=12, width=40):
    return np.random.default_rng(0).normal(size=(images, patches, width)).astype(np.float32)


def test_a_point_is_in_the_patch_that_covers_it():
    assert patch_at((0.0, 0.0), (3, 4)) == 0
    assert patch_at((0.99, 0.5), (3, 4)) == 7
    assert patch_at((130, 10), (3, 4), (200, 90)) == 2
    with pytest.raises(InputError, match="outside the image"):
        patch_at((1.0, 0.5), (3, 4))


def test_similarity_is_the_cosine_and_the_best_match_its_largest():
    x = tokens()
    query, other = x[0, 5], x[1]
    cosine = [float(query @ t / np.linalg.norm(query) / np.linalg.norm(t)) for t in other]
    np.testing.assert_allclose(patch_similarity(query, other), cosine, rtol=1e-5)
    assert best_match(query, other) == int(np.argmax(cosine))


def test_bytes_keep_the_cosines():
    x = tokens()
    found = encode_tokens(x)
    assert found.codes.shape == x.shape
    assert found.kept == pytest.approx(1)
    codes = found.codes.astype(np.float64)
    for image in range(3):
        np.testing.assert_allclose(
            patch_similarity(codes[0, 4], codes[image]),
            patch_similarity(x[0, 4], x[image]),
            atol=0.02,
        )


def test_fewer_directions_say_what_they_keep():
    found = encode_tokens(tokens(), width=5)
    assert found.codes.shape == (3, 12, 5)
    assert 0.1 < found.kept < 0.6
    with pytest.raises(InputError, match="width must be positive"):
        encode_tokens(tokens(), width=0)


def places(rows=4, columns=4):
    """Return tokens that know their place, the same in every image."""
    return np.broadcast_to(np.eye(rows * columns), (6, rows * columns, rows * columns))


def test_tokens_that_know_their_place_find_landmarks_that_do_not_move():
    centre = {"carina": (0.625, 0.375)}
    (row,) = landmark_errors(places(), (4, 4), [centre] * 6).to_dict("records")
    assert (row["value"], row["low"], row["high"], row["same place"]) == (0, 0, 0, 0)
    assert (row["pairs"], row["images"]) == (30, 6)
    distances = [
        np.hypot(x - 0.625, y - 0.375) for x in np.arange(4) / 4 + 0.125
        for y in np.arange(4) / 4 + 0.125
    ]  # fmt: skip
    assert row["chance"] == pytest.approx(np.mean(distances))


def test_errors_are_means_over_pairs_of_other_patients():
    points = [{"dome": (0.125, 0.125)}, {"dome": (0.625, 0.125)}, {}, {"dome": (0.125, 0.125)}]
    table = landmark_errors(places()[:4], (4, 4), points, patients=["a", "b", "c", "a"])
    (row,) = table.to_dict("records")
    assert row["pairs"] == 4  # not those of patient a with itself
    assert row["value"] == row["same place"] == 0.5
    assert np.isnan(row["low"])  # of two patients
    assert landmark_errors(places()[:2], (4, 4), [points[0], {}]).empty


def test_the_figure_rings_the_best_match():
    similarity = np.zeros((2, 2))
    similarity[1, 0] = 1
    axes = plot_correspondence(np.zeros((8, 8)), similarity, point=(0.75, 0.25))
    ring, cross = axes.lines
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2, 6)
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (6, 2)
    assert plot_correspondence(np.zeros((8, 8)), similarity, axes) is axes

import numpy as np
import pytest

from cxrssl.data.phantom.canvas import (
    Frame,
    band,
    coarse,
    ellipse,
    outside,
    overlap,
    soft,
    spline,
    union,
)


def frame(side=100, tilt=0.0, yaw=0.0):
    return Frame(side, half_width=0.3, height=0.6, origin=(0.5, 0.2), tilt=tilt, yaw=yaw)


def test_a_point_is_placed_by_hand():
    # x: (0.5 + 0.5 * 0.3) * 200 - 0.5; y: (0.2 + 0.25 * 0.6) * 200 - 0.5, on a sheet twice as fine
    np.testing.assert_allclose(frame().pixels(np.array([0.5, 0.25])), [129.5, 69.5])


def test_turning_keeps_distances_and_the_origin():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    placed = frame(tilt=0.3).pixels(points)
    np.testing.assert_allclose(placed[0], [99.5, 39.5])
    np.testing.assert_allclose(np.linalg.norm(placed[1:] - placed[0], axis=1), [60, 120])


def test_yaw_moves_front_against_back():
    points = np.zeros((2, 2))
    placed = frame(yaw=0.1).pixels(points, np.array([-1.0, 1.0]))
    # 0.1 half-widths of 0.3 * 200 pixels to either side
    np.testing.assert_allclose(placed[:, 0], [99.5 - 6, 99.5 + 6])


def test_a_filled_box_covers_its_area():
    box = np.array([[-0.5, 0.25], [0.5, 0.25], [0.5, 0.75], [-0.5, 0.75]])
    layer = frame().shape([box])
    assert layer.shape == (100, 100)
    assert layer[50, 50] == 255
    assert layer[10, 50] == 0
    # 30 x 30 pixels; the smoothed edge adds about a third of a pixel on each side
    assert layer.sum() / 255 == pytest.approx(900, rel=0.06)


def test_a_stack_of_polygons_is_a_list_of_polygons():
    stack = np.stack([ellipse((x, 0.5), (0.1, 0.1)) for x in (-0.5, 0.5)])
    one, other = frame(), frame()
    np.testing.assert_array_equal(one.shape(stack), other.shape(list(stack)))


def test_a_line_covers_its_width():
    line = np.array([[[-0.8, 0.5], [0.8, 0.5]]])
    drawing = frame()
    thick = drawing.trace(drawing.sheet(), line, 0.05)
    thin = drawing.trace(drawing.sheet(), line, 0.005)
    # 3 pixels of the sheet, drawn as a line that covers 3.6; then 0.3 drawn as 1.35
    assert thick.max() == round(255 * 3 / 3.6)
    assert 0 < thin.max() <= round(255 * 0.3 / 1.35)
    columns = slice(80, 120)
    covered = [sheet[:, columns].sum() / 255 / 40 for sheet in (thick, thin)]
    np.testing.assert_allclose(covered, [3, 0.3], rtol=0.15)


def test_a_spline_meets_its_controls():
    controls = [(0.0, 0.0), (1.0, 2.0), (3.0, 1.0)]
    np.testing.assert_allclose(spline(controls, 5)[[0, 2, 4]], controls, atol=1e-12)
    np.testing.assert_allclose(spline(controls, 6, closed=True)[[0, 2, 4]], controls, atol=1e-12)


def test_a_band_has_its_width():
    line = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    outline = band(line, 0.2, aspect=2.0)
    # Lengths are in half-widths; a height is measured in lung heights, twice as long.
    np.testing.assert_allclose(outline[:, 1], [0.05] * 3 + [-0.05] * 3)
    np.testing.assert_array_equal(band(line[None], 0.2, aspect=2.0)[0], outline)


def test_a_wide_blur_keeps_a_flat_layer_and_spreads_a_spot():
    layer = np.full((64, 64), 255, np.uint8)
    np.testing.assert_allclose(coarse(layer, 0.05), 1, atol=1e-5)
    layer[:] = 0
    layer[30:34, 30:34] = 255
    blurred = coarse(layer, 0.05)
    assert 0.03 < blurred.max() < 0.5
    assert blurred.sum() == pytest.approx(16, rel=0.05)


def test_layers_combine():
    one, other = np.array([[10, 200]], np.uint8), np.array([[30, 50]], np.uint8)
    np.testing.assert_array_equal(overlap(one, other), [[10, 50]])
    np.testing.assert_array_equal(union(one, other), [[30, 200]])
    np.testing.assert_array_equal(outside(one, other), [[0, 150]])
    np.testing.assert_allclose(soft(one, 0.51), [[0.02, 0.4]], rtol=1e-6)

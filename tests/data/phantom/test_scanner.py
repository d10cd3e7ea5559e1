from dataclasses import replace

import numpy as np
import pytest

from cxrssl.data.phantom.scanner import Style, develop

PLAIN = Style(
    low=0.1,
    high=0.9,
    gamma=1.0,
    contrast=0.0,
    equalisation=0.0,
    sharpening=0.0,
    noise=0.0,
    blur=0.0,
    grid=0.0,
    heel=(0.0, 0.0),
    margins=(0.0, 0.0, 0.0, 0.0),
    turn=0.0,
    shutter=0.0,
    marker="",
    marker_at=(0.1, 0.1),
    marker_size=0.05,
    text="",
    text_at=(0.1, 0.9),
    ink=1.0,
    stripe=-1.0,
)


def flat(value, side=64):
    return np.full((side, side), value, np.float32)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("loss", "grey"), [(0.0, 0.0), (0.1, 0.0), (0.5, 0.5), (0.7, 0.75), (2, 1)]
)
def test_the_window_is_linear(loss, grey):
    np.testing.assert_allclose(develop(flat(loss), PLAIN, rng()), grey, atol=1e-6)


def test_gamma_and_contrast_by_hand():
    grey = develop(flat(0.3), replace(PLAIN, gamma=2.0), rng())
    np.testing.assert_allclose(grey, 0.25**2, atol=1e-6)
    # 3 x^2 - 2 x^3 at 0.25 is 0.15625
    grey = develop(flat(0.3), replace(PLAIN, contrast=1.0), rng())
    np.testing.assert_allclose(grey, 0.15625, atol=1e-6)


def test_the_input_is_left_alone():
    loss = flat(0.5)
    develop(loss, replace(PLAIN, noise=0.1, sharpening=1.0, equalisation=0.3), rng())
    np.testing.assert_array_equal(loss, flat(0.5))


def test_noise_grows_where_more_is_lost():
    style = replace(PLAIN, noise=0.02, low=0.0, high=1.0)
    thin, thick = (develop(flat(value), style, rng()).std() for value in (0.2, 0.8))
    # 1.15 over 0.55
    assert thick / thin == pytest.approx(2.09, rel=0.02)


def test_borders_take_the_grey_of_the_shutter():
    style = replace(PLAIN, margins=(0.25, 0.0, 0.0, 0.125), shutter=0.96)
    grey = develop(flat(0.5), style, rng())
    np.testing.assert_allclose(grey[:, :15], 0.96, atol=1e-6)
    np.testing.assert_allclose(grey[58:], 0.96, atol=1e-6)
    np.testing.assert_allclose(grey[:55, 17:], 0.5, atol=1e-6)


def test_marks_are_written_inside_the_image():
    style = replace(PLAIN, marker="L JM", marker_at=(0.91, 0.2), text="PORTABLE")
    grey = develop(flat(0.1, 256), style, rng())
    assert (grey[30:55] > 0.5).sum() > 20
    assert (grey[220:235] > 0.5).sum() > 20
    assert not grey[:, -1].any()


def test_a_stripe_marks_one_row():
    grey = develop(flat(0.5), replace(PLAIN, stripe=0.5), rng())
    np.testing.assert_array_equal(np.flatnonzero(np.ptp(grey, axis=1) + (grey[:, 0] > 0.55)), [32])


def test_styles_vary_within_bounds():
    draws = rng()
    styles = [Style.sample(draws, bedside=number % 2 == 0) for number in range(400)]
    assert all(style.high - style.low >= 0.8 for style in styles)
    assert all(max(style.margins) < 0.1 for style in styles)
    assert {style.marker[0] for style in styles} == {"L", "R"}
    assert {style.text for style in styles[1::2]} == {"", "ERECT", "PA", "STANDING"}
    assert np.std([style.gamma for style in styles]) > 0.1

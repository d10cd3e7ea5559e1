import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from cxrssl.errors import InputError
from cxrssl.views import Photometry


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def image():
    """Return smooth structure and noise over the whole range, (40, 56)."""
    ramp = np.add.outer(np.linspace(0, 150, 40), np.linspace(0, 90, 56))
    return (ramp + np.random.default_rng(1).uniform(0, 15, ramp.shape)).astype(np.uint8)


def torchvision(function, image, *arguments):
    return function(torch.from_numpy(image)[None], *arguments)[0].numpy().astype(int)


def scaled(grey, factor, centre=0.0):
    """Scale grey values about a centre, pixel by pixel."""
    return np.clip(centre + factor * (grey - centre), 0, 255)


def test_defaults_change_nothing(image, rng):
    before = image.copy()
    changed = Photometry()(image, rng)
    assert np.array_equal(changed, before)
    assert changed is not image


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 3.0])
def test_brightness_is_torchvisions(image, rng, factor):
    changed = Photometry(brightness=(factor, factor))(image, rng)
    expected = torchvision(functional.adjust_brightness, image, factor)
    assert np.abs(changed - expected).max() <= 1


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4, 3.0])
def test_contrast_is_torchvisions(image, rng, factor):
    changed = Photometry(contrast=(factor, factor))(image, rng)
    expected = torchvision(functional.adjust_contrast, image, factor)
    assert np.abs(changed - expected).max() <= 1


def test_gamma_by_hand(rng):
    # 255 * (64 / 255)^2 = 16.06 and 255 * (128 / 255)^2 = 64.25
    changed = Photometry(gamma=(2.0, 2.0))(np.array([[0, 64, 128, 255]], dtype=np.uint8), rng)
    assert changed.tolist() == [[0, 16, 64, 255]]


def test_gamma_is_log_uniform(rng):
    photometry = Photometry(gamma=(0.5, 2.0))
    image = np.array([[100]], dtype=np.uint8)
    results = np.array([photometry(image, rng)[0, 0] for _ in range(1000)])
    # A gamma below 1, which brightens, is as likely as one above.
    assert (results > 100).mean() == pytest.approx(0.5, abs=0.05)
    assert results.min() >= 255 * (100 / 255) ** 2 - 1
    assert results.max() <= 255 * (100 / 255) ** 0.5 + 1


def test_brightness_and_contrast_come_in_either_order(image):
    photometry = Photometry(brightness=(1.5, 1.5), contrast=(0.5, 0.5))
    bright = scaled(image, 1.5)
    bright_first = np.rint(scaled(bright, 0.5, bright.mean()))
    contrast_first = np.rint(scaled(scaled(image, 0.5, image.mean()), 1.5))
    counts = [0, 0]
    for seed in range(200):
        changed = photometry(image, np.random.default_rng(seed))
        matches = [
            np.abs(changed - order).max() <= 1e-9 for order in (bright_first, contrast_first)
        ]
        assert sum(matches) == 1
        counts[matches.index(True)] += 1
    assert counts[0] / 200 == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("side", [1, 9, 23])
@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 2.0])
def test_blur_is_torchvisions(image, rng, sigma, side):
    changed = Photometry(blur_p=1.0, blur_sigma=(sigma, sigma), blur_kernel=side)(image, rng)
    expected = torchvision(functional.gaussian_blur, image, [side, side], [sigma, sigma])
    assert np.abs(changed - expected).max() <= 1


def test_the_kernel_of_the_blur_is_nine_unless_given(image):
    blurred = [
        Photometry(blur_p=1.0, blur_sigma=(2.0, 2.0), **side)(image, np.random.default_rng(0))
        for side in ({}, {"blur_kernel": 9}, {"blur_kernel": 23})
    ]
    assert np.array_equal(blurred[0], blurred[1])
    assert not np.array_equal(blurred[0], blurred[2])


def test_the_kernel_of_the_blur_cuts_its_tails(rng):
    # A point of light spreads over the kernel and no further.
    point = np.zeros((1, 41), dtype=np.uint8)
    point[0, 20] = 255
    for side in (3, 9, 23):
        blur = Photometry(blur_p=1.0, blur_sigma=(30.0, 30.0), blur_kernel=side)
        assert np.count_nonzero(blur(point, rng)) == side


def test_the_kernel_of_the_blur_may_be_wider_than_the_image(rng):
    grey = np.full((5, 3), 77, dtype=np.uint8)
    assert (Photometry(blur_p=1.0, blur_kernel=23)(grey, rng) == 77).all()


def test_solarise_by_hand(rng):
    levels = np.array([[0, 127, 128, 200, 255]], dtype=np.uint8)
    assert Photometry(solarise_p=1.0)(levels, rng).tolist() == [[0, 127, 127, 55, 0]]


def test_jitter_then_blur_then_solarise(image, rng):
    together = Photometry(brightness=(1.3, 1.3), blur_p=1.0, blur_sigma=(1.5, 1.5), solarise_p=1.0)(
        image, rng
    )
    step = image
    for photometry in (
        Photometry(brightness=(1.3, 1.3)),
        Photometry(blur_p=1.0, blur_sigma=(1.5, 1.5)),
        Photometry(solarise_p=1.0),
    ):
        step = photometry(step, rng)
    assert np.array_equal(together, step)


def test_noise_has_its_standard_deviation(rng):
    grey = np.full((200, 200), 128, dtype=np.uint8)
    changed = Photometry(noise=0.02)(grey, rng)
    # Rounding adds a variance of 1/12.
    assert changed.std() == pytest.approx(np.sqrt((0.02 * 255) ** 2 + 1 / 12), rel=0.02)
    assert changed.mean() == pytest.approx(128, abs=0.1)


def test_noise_is_clipped(rng):
    changed = Photometry(noise=0.2)(np.array([[0] * 50 + [255] * 50], dtype=np.uint8), rng)
    assert changed[0, :50].max() < 250
    assert changed[0, 50:].min() > 5


@pytest.mark.parametrize(
    "options",
    [
        {"brightness": (0.5, 0.5), "jitter_p": 0.3},
        {"blur_p": 0.3, "blur_sigma": (2.0, 2.0)},
        {"solarise_p": 0.3},
    ],
)
def test_probabilities_are_of_applying(image, rng, options):
    photometry = Photometry(**options)
    changed = [not np.array_equal(photometry(image, rng), image) for _ in range(500)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.07)


def test_draw_leaves_the_last_look_up(image):
    photometry = Photometry(
        brightness=(0.5, 1.5), contrast=(0.5, 1.5), blur_p=0.5, solarise_p=0.5, noise=0.01
    )
    for seed in range(20):
        pixels, table = photometry.draw(image, np.random.default_rng(seed))
        assert table.dtype == np.uint8
        assert np.array_equal(table[pixels], photometry(image, np.random.default_rng(seed)))


def test_the_image_is_left_alone(image, rng):
    before = image.copy()
    image.flags.writeable = False
    Photometry(brightness=(0.5, 0.5), blur_p=1.0, solarise_p=1.0, noise=0.1)(image, rng)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"brightness": (1.2, 0.8)},
            r"brightness must be .* 0 <= low <= high, both finite, got \(1.2, 0.8\)",
        ),
        (
            {"contrast": (-0.1, 1.0)},
            r"contrast must be .* 0 <= low <= high, both finite, got \(-0.1, 1.0\)",
        ),
        ({"gamma": (0.0, 1.0)}, r"gamma must be .* 0 < low <= high, both finite, got \(0.0, 1.0\)"),
        ({"blur_sigma": (2.0, 1.0)}, r"blur_sigma must be .* got \(2.0, 1.0\)"),
        ({"jitter_p": 1.5}, "jitter_p must be a probability, got 1.5"),
        ({"blur_p": -0.5}, "blur_p must be a probability, got -0.5"),
        ({"solarise_p": float("nan")}, "solarise_p must be a probability, got nan"),
        ({"blur_kernel": 8}, "blur_kernel must be odd and positive, got 8"),
        ({"blur_kernel": -1}, "blur_kernel must be odd and positive, got -1"),
        ({"noise": -1.0}, "noise must be finite and not negative, got -1.0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        Photometry(**options)

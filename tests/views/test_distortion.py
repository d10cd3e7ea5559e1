import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from scipy.stats import kstest
from torchvision.transforms.functional import adjust_gamma

from cxrssl.errors import InputError
from cxrssl.views import ACTION, IDENTITY, Distortion
from cxrssl.views.pixels import (
    LEVELS,
    bend_levels,
    gaussian_blur,
    look_up,
    mean_level,
    scale_levels,
)
from tests.golden import load_golden

ALWAYS = Distortion(photometric_p=1.0, blur_p=1.0, noise_p=1.0)
RAMP = Image.fromarray(LEVELS[None])


def noise(height=31, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def action_of(**values):
    action = dict(zip(ACTION, IDENTITY, strict=True)) | values
    return np.array(list(action.values()), dtype=np.float32)


def apply(image, action):
    return Distortion().apply(image, action, np.random.default_rng(0))


def slow_distortion(image, action):
    """Distort an RGB image step by step, as the released code does, and return it grey."""
    brightness, contrast, gamma, radius, _ = action.tolist()
    colour = Image.fromarray(image).convert("RGB")
    colour = ImageEnhance.Brightness(colour).enhance(brightness)
    colour = ImageEnhance.Contrast(colour).enhance(contrast)
    colour = adjust_gamma(colour, gamma)
    colour = colour.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(colour.convert("L"))


class TestPixels:
    @pytest.mark.parametrize("centre", [0, 1, 100, 127, 128, 255])
    def test_scaling_is_pillows_blend(self, centre):
        middle = Image.new("L", RAMP.size, centre)
        factors = [0.0, 0.5, 1.0, 1.5, 2.0, *np.random.default_rng(0).uniform(0, 3, 300)]
        for factor in factors:
            expected = np.asarray(Image.blend(middle, RAMP, float(factor)))[0]
            assert np.array_equal(scale_levels(LEVELS, float(factor), centre), expected)

    def test_bending_is_torchvisions_gamma(self):
        exponents = [0.5, 1.0, 2.0, *np.random.default_rng(0).uniform(0.1, 4, 300)]
        for exponent in exponents:
            expected = np.asarray(adjust_gamma(RAMP, float(exponent)))[0]
            assert np.array_equal(bend_levels(LEVELS, float(exponent)), expected)

    def test_mean_is_that_of_the_changed_image_rounded_half_up(self):
        image = np.array([[0, 1, 2, 3]], dtype=np.uint8)
        assert mean_level(image, LEVELS) == 2  # 1.5
        assert mean_level(image, LEVELS // 2) == 1  # (0 + 0 + 1 + 1) / 4 = 0.5
        assert mean_level(image, LEVELS // 3) == 0  # 0.25
        table = scale_levels(LEVELS, 1.3)
        expected = int(table[noise()].astype(float).mean() + 0.5)
        assert mean_level(noise(), table) == expected

    def test_blur_is_of_the_standard_deviation(self):
        image = np.zeros((41, 41), dtype=np.uint8)
        image[20] = 255
        profile = gaussian_blur(image, 2.0)[:, 20].astype(float)
        spread = np.average((np.arange(41) - 20) ** 2, weights=profile)
        assert np.sqrt(spread) == pytest.approx(2.0, abs=0.15)


class TestApply:
    @pytest.mark.parametrize("name", ["b", "c", "g", "g2", "r", "all"])
    def test_golden(self, name):
        golden = load_golden("chexworld/views.npz")
        distorted = apply(golden["image_u8"].numpy(), golden[f"Ta_{name}_params"].numpy())
        assert np.array_equal(distorted, golden[f"Ta_{name}_u8"].numpy())

    def test_equals_the_slow_steps(self):
        rng = np.random.default_rng(0)
        distortion = Distortion(photometric_p=0.9, blur_p=0.5)
        for seed in range(60):
            image, action = noise(seed=seed), distortion.draw(rng)
            assert np.array_equal(
                distortion.apply(image, action, rng), slow_distortion(image, action)
            )

    def test_identity_changes_nothing(self):
        image = noise()
        assert np.array_equal(apply(image, action_of()), image)

    def test_by_hand(self):
        image = np.array([[10, 20], [30, 201]], dtype=np.uint8)
        assert apply(image, action_of(brightness=1.3)).tolist() == [[13, 26], [39, 255]]
        # The mean 65.25 is rounded to 65: 65 - 27.5, 65 - 22.5, 65 - 17.5, 65 + 68, rounded down.
        assert apply(image, action_of(contrast=0.5)).tolist() == [[37, 42], [47, 133]]

    def test_look_up_left_to_the_caller_is_the_last_step(self):
        image = noise()
        for values in ({"gamma": 1.5}, {"gamma": 1.5, "blur": 1.0}, {"blur": 1.0, "noise": 0.1}):
            action = action_of(**values)
            pixels, table = Distortion().apply_but_look_up(image, action, np.random.default_rng(0))
            assert np.array_equal(look_up(pixels, table), apply(image, action))
            assert (pixels is image) == (values.keys() == {"gamma"})

    def test_noise_has_its_standard_deviation(self):
        image = np.full((200, 200), 128, dtype=np.uint8)
        noisy = apply(image, action_of(noise=0.1)).astype(float)
        assert noisy.mean() == pytest.approx(128, abs=0.5)
        assert noisy.std() == pytest.approx(25.5, abs=0.5)

    def test_image_is_not_written_to(self):
        image = noise()
        image.flags.writeable = False
        distorted = apply(image, ALWAYS.draw(np.random.default_rng(0)))
        assert distorted.shape == image.shape
        assert distorted.dtype == np.uint8


class TestDraw:
    def test_nothing_drawn_is_the_identity(self):
        never = Distortion(photometric_p=0.0, blur_p=0.0)
        action = never.draw(np.random.default_rng(0))
        assert action.dtype == np.float32
        assert action.tolist() == list(IDENTITY)

    def test_laws(self):
        rng = np.random.default_rng(0)
        actions = np.array([ALWAYS.draw(rng) for _ in range(2000)], dtype=np.float64)
        actions[:, 2] = np.log(actions[:, 2])
        ranges = [(0.6, 1.4), (0.6, 1.4), (-np.log(2), np.log(2)), (0.1, 2.0), (0.05, 0.2)]
        for values, (low, high) in zip(actions.T, ranges, strict=True):
            assert kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3

    def test_probabilities(self):
        rng = np.random.default_rng(0)
        changed = np.array([Distortion().draw(rng) for _ in range(3000)]) != np.float32(IDENTITY)
        assert changed.mean(0) == pytest.approx([0.8, 0.8, 0.8, 0.2, 0.0], abs=0.03)
        assert (changed[:, :3].all(1) == changed[:, :3].any(1)).all()

    @pytest.mark.parametrize("probability", [0.0, 1.0])
    def test_photometric_probability_can_be_overridden(self, probability):
        rng = np.random.default_rng(0)
        drawn = [Distortion().draw(rng, probability)[0] != 1 for _ in range(20)]
        assert drawn == [bool(probability)] * 20


class TestNormalise:
    def test_ranges_map_to_the_unit_scale(self):
        actions = np.array(
            [[0.6, 0.6, 0.5, 0.0, 0.0], [1.4, 1.4, 2.0, 2.0, 0.2], IDENTITY], dtype=np.float32
        )
        expected = [[-1, -1, -1, 0, 0], [1, 1, 1, 1, 0.2], [0, 0, 0, 0, 0]]
        normalised = Distortion().normalise(actions)
        assert normalised.dtype == np.float32
        assert normalised == pytest.approx(np.array(expected), abs=1e-6)
        assert Distortion().normalise(actions[1]) == pytest.approx(normalised[1])

    def test_ranges_of_one_value_tell_whether_they_were_applied(self):
        fixed = Distortion(brightness=(0.5, 0.5), contrast=(3, 3), gamma=(2, 2), blur=(4, 4))
        applied = fixed.normalise(action_of(brightness=0.5, contrast=3, gamma=2, blur=4))
        # 0.5 - 1, 3 - 1, ln 2, 4 / 4.
        assert applied == pytest.approx([-0.5, 2, 0.693147, 1, 0], abs=1e-6)
        assert fixed.normalise(action_of()).tolist() == [0] * 5

    def test_ranges_of_the_identity_alone(self):
        still = Distortion(brightness=(1, 1), contrast=(1, 1), gamma=(1, 1), blur=(0, 0))
        assert still.normalise(action_of()).tolist() == [0] * 5

    def test_the_given_action_stays(self):
        action = action_of(brightness=0.7)
        before = action.copy()
        Distortion().normalise(action)
        assert np.array_equal(action, before)


@pytest.mark.parametrize("name", ["brightness", "contrast", "gamma", "blur", "noise"])
@pytest.mark.parametrize("bounds", [(1.0, 0.5), (-0.5, 1.0), (0.6, np.inf), (np.nan, 1.0)])
def test_ranges_are_checked(name, bounds):
    with pytest.raises(InputError, match=rf"{name} must be \(low, high\) .* got \({bounds[0]}"):
        Distortion(**{name: bounds})


def test_gamma_must_be_positive():
    with pytest.raises(InputError, match=r"gamma must be .* 0 < low .* got \(0.0, 1.0\)"):
        Distortion(gamma=(0.0, 1.0))


@pytest.mark.parametrize("name", ["photometric_p", "blur_p", "noise_p"])
def test_probabilities_are_checked(name):
    with pytest.raises(InputError, match=f"{name} must be a probability, got 1.5"):
        Distortion(**{name: 1.5})


def test_distortions_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError, match="blur_p"):
        Distortion().blur_p = 1.0

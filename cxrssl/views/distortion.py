"""Distortions of a view whose parameters, the action, the predictor is told."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError
from cxrssl.views.base import check_range
from cxrssl.views.pixels import (
    LEVELS,
    bend_levels,
    gaussian_blur,
    look_up,
    mean_level,
    scale_levels,
)

__all__ = ["ACTION", "IDENTITY", "Distortion"]

ACTION = ("brightness", "contrast", "gamma", "blur", "noise")
"""What the five numbers of an action are."""

IDENTITY = (1.0, 1.0, 1.0, 0.0, 0.0)
"""The action that changes nothing."""


@dataclass(frozen=True)
class Distortion:
    """Random distortion of CheXWorld (arXiv 2504.13820), with its released defaults.

    The order is fixed: brightness, contrast about the mean, gamma, Gaussian blur, Gaussian noise;
    each step is rounded and clipped to 8 bits as Pillow does it. The first three come together.

    Args:
        brightness: Smallest and largest factor.
        contrast: Smallest and largest factor.
        gamma: Smallest and largest exponent of the grey value in [0, 1], drawn log-uniformly.
        photometric_p: Probability of brightness, contrast and gamma together.
        blur: Smallest and largest radius (standard deviation) in pixels of the view.
        blur_p: Probability of the blur.
        noise: Smallest and largest standard deviation, as a share of the full range.
        noise_p: Probability of the noise.

    Raises:
        InputError: A range is reversed, negative or not finite, the smallest gamma is 0, or a
            probability is not in [0, 1].
    """

    brightness: tuple[float, float] = (0.6, 1.4)
    contrast: tuple[float, float] = (0.6, 1.4)
    gamma: tuple[float, float] = (0.5, 2.0)
    photometric_p: float = 0.8
    blur: tuple[float, float] = (0.1, 2.0)
    blur_p: float = 0.2
    noise: tuple[float, float] = (0.05, 0.2)
    noise_p: float = 0.0

    def __post_init__(self) -> None:
        for name in ACTION:
            # The exponent is drawn log-uniformly.
            check_range(name, getattr(self, name), zero=name != "gamma")
        for name in ("photometric_p", "blur_p", "noise_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be a probability, got {getattr(self, name)}")

    def draw(
        self, rng: np.random.Generator, photometric_p: float | None = None
    ) -> NDArray[np.float32]:
        """Draw an action.

        Args:
            rng: Source of every draw.
            photometric_p: Probability of brightness, contrast and gamma, instead of the field's.

        Returns:
            (5,) float32, in the order of :data:`ACTION`.
        """
        action = np.array(IDENTITY, dtype=np.float32)
        if rng.random() < (self.photometric_p if photometric_p is None else photometric_p):
            action[0] = rng.uniform(*self.brightness)
            action[1] = rng.uniform(*self.contrast)
            action[2] = math.exp(rng.uniform(math.log(self.gamma[0]), math.log(self.gamma[1])))
        if rng.random() < self.blur_p:
            action[3] = rng.uniform(*self.blur)
        if rng.random() < self.noise_p:
            action[4] = rng.uniform(*self.noise)
        return action

    def apply(
        self, image: NDArray[np.uint8], action: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Return a distorted copy of an image.

        Args:
            image: (H, W) uint8.
            action: (5,), in the order of :data:`ACTION`.
            rng: Source of the noise.
        """
        return look_up(*self.apply_but_look_up(image, action, rng))

    def apply_but_look_up(
        self, image: NDArray[np.uint8], action: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Distort an image and leave the last look-up to the caller.

        Arguments are those of :meth:`apply`.

        Returns:
            Pixels (H, W) uint8 and a table (256,) uint8; the distorted image is ``table[pixels]``.
            A caller with a look-up of its own, such as the normalisation, composes the two tables.
        """
        brightness, contrast, exponent, radius, std = action.tolist()
        table = LEVELS
        if brightness != 1:
            table = scale_levels(table, brightness)
        if contrast != 1:
            table = scale_levels(table, contrast, mean_level(image, table))
        if exponent != 1:
            table = bend_levels(table, exponent)
        if radius > 0:
            image, table = gaussian_blur(look_up(image, table), radius), LEVELS
        if std > 0:
            image, table = _add_noise(look_up(image, table), 255 * std, rng), LEVELS
        return image, table

    def normalise(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return actions (..., 5) on common scales.

        The ranges of brightness, contrast and the logarithm of gamma become [-1, 1], that of the
        blur ends at 1, and the noise stays. Where the range of one of the first three is a single
        value, the distance to the identity is told instead (value - 1, or the logarithm of gamma),
        so that the predictor knows whether the change was applied.
        """
        low, high = np.log(self.gamma)
        scaled = action.astype(np.float64)
        scaled[..., 0] = _centred(scaled[..., 0], *self.brightness, identity=1.0)
        scaled[..., 1] = _centred(scaled[..., 1], *self.contrast, identity=1.0)
        scaled[..., 2] = _centred(np.log(scaled[..., 2]), low, high, identity=0.0)
        scaled[..., 3] /= self.blur[1] or 1.0
        return scaled.astype(np.float32)


def _centred(
    values: NDArray[np.float64], low: float, high: float, *, identity: float
) -> NDArray[np.float64]:
    if low == high:
        return values - identity
    return (2 * values - low - high) / (high - low)


def _add_noise(image: NDArray[np.uint8], std: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noisy = np.rint((image + np.float32(std) * noise).clip(0, 255))
    return np.asarray(noisy, dtype=np.uint8)

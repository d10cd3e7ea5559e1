"""Changes of grey values that make one crop a view."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError
from cxrssl.views.base import check_range

__all__ = ["Photometry"]

LEVELS: NDArray[np.uint8] = np.arange(256, dtype=np.uint8)
"""The look-up table that changes nothing."""

SOLARISE_FROM = 128


@dataclass(frozen=True)
class Photometry:
    """Random photometric change of one kind of view; the defaults change nothing.

    In this order: with probability ``jitter_p`` a gamma curve, then brightness and contrast in
    random order; with ``blur_p`` a Gaussian blur; noise; with ``solarise_p`` solarisation.
    Brightness and contrast follow torchvision's ColorJitter: brightness multiplies, contrast scales
    the distance to the mean of the view, and each step clips to [0, 255]. Whatever acts on single
    pixels is composed into one look-up table of 256 entries, rounded once, so that its cost does
    not grow with the number of steps.

    Args:
        brightness: Smallest and largest factor.
        contrast: Smallest and largest factor.
        gamma: Smallest and largest exponent of the grey value in [0, 1], drawn log-uniformly.
        jitter_p: Probability of gamma, brightness and contrast together.
        blur_p: Probability of the blur. This is the probability that it is *applied*.
        blur_sigma: Smallest and largest standard deviation of the blur in pixels of the view.
        blur_kernel: Side of the blur's kernel in pixels, odd. DINOv2 has 9; 23 is MLVICX's, and
            wide enough for VICReg's blur, which has no kernel.
        solarise_p: Probability that grey values from 128 upwards are inverted.
        noise: Standard deviation of additive Gaussian noise, as a share of the full range.

    Raises:
        InputError: An option is out of range, or the kernel's side is not odd and positive.
    """

    brightness: tuple[float, float] = (1.0, 1.0)
    contrast: tuple[float, float] = (1.0, 1.0)
    gamma: tuple[float, float] = (1.0, 1.0)
    jitter_p: float = 1.0
    blur_p: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int = 9
    solarise_p: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast"):
            check_range(name, getattr(self, name))
        for name in ("gamma", "blur_sigma"):
            check_range(name, getattr(self, name), zero=False)
        for name in ("jitter_p", "blur_p", "solarise_p"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be a probability, got {getattr(self, name)}")
        if self.blur_kernel < 1 or self.blur_kernel % 2 != 1:
            raise InputError(f"blur_kernel must be odd and positive, got {self.blur_kernel}")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"noise must be finite and not negative, got {self.noise}")

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return a changed copy of an image (H, W) uint8."""
        pixels, table = self.draw(image, rng)
        return _look_up(pixels, table)

    def draw(
        self, image: NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Draw a change and leave its last look-up to the caller.

        Returns:
            Pixels (H, W) uint8 and a table (256,) uint8; the changed image is ``table[pixels]``. A
            caller with a look-up of its own, such as the normalisation, composes the two tables.
        """
        table = LEVELS
        if rng.random() < self.jitter_p:
            table = self._jitter(image, rng)
        if rng.random() < self.blur_p:
            sigma = rng.uniform(*self.blur_sigma)
            image = _blur(_look_up(image, table), sigma, self.blur_kernel)
            table = LEVELS
        if self.noise > 0:
            image = _add_noise(_look_up(image, table), 255 * self.noise, rng)
            table = LEVELS
        if rng.random() < self.solarise_p:
            table = np.where(table < SOLARISE_FROM, table, 255 - table)
        return image, table

    def _jitter(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the table (256,) uint8 of gamma, brightness and contrast."""
        gamma = math.exp(rng.uniform(math.log(self.gamma[0]), math.log(self.gamma[1])))
        brightness = rng.uniform(*self.brightness)
        contrast = rng.uniform(*self.contrast)
        curve = 255 * (np.arange(256) / 255) ** gamma
        if rng.random() < 0.5:
            curve = _scale(curve, brightness)
            curve = _scale(curve, contrast, _mean(image, curve))
        else:
            curve = _scale(curve, contrast, _mean(image, curve))
            curve = _scale(curve, brightness)
        return np.rint(curve).astype(np.uint8)


def _look_up(image: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


def _scale(curve: NDArray[np.float64], factor: float, centre: float = 0.0) -> NDArray[np.float64]:
    """Scale grey values about a centre, and clip them to the range."""
    scaled: NDArray[np.float64] = (centre + factor * (curve - centre)).clip(0, 255)
    return scaled


def _mean(image: NDArray[np.uint8], curve: NDArray[np.float64]) -> float:
    """Return the mean of ``curve[image]`` from the histogram, without making that image."""
    counts = cv2.calcHist([image], [0], None, [256], [0, 256])
    return float(counts.ravel() @ curve) / image.size


def _blur(image: NDArray[np.uint8], sigma: float, side: int) -> NDArray[np.uint8]:
    # On uint8 the separable filter is several times quicker than GaussianBlur, and rounds once.
    kernel = cv2.getGaussianKernel(side, sigma, cv2.CV_32F)
    blurred = cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, dtype=np.uint8)


def _add_noise(image: NDArray[np.uint8], std: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noisy = np.rint((image + std * noise).clip(0, 255))
    return np.asarray(noisy, dtype=np.uint8)

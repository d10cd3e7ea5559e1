"""Time of the views of one image over the official torchvision pipeline on a PIL image.

    python benchmarks/views.py [--side 512 --rounds 60]

Both make two global crops of 224 and eight local crops of 96 pixels, or two views of 224 as VICReg
has them, as normalised float32 tensors, from a decoded image: grey for ours, RGB for the reference,
as the released codes do it. The methods take turns on the same image on one thread, and its
processor time is counted: on a busy machine the clock on the wall also counts the turns of other
programs, which the longer method meets more often. The masks of a batch are timed beside them.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from cxrssl.views import BlockMasking, MultiCrop, PairViews, Views

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
REFERENCE = "torchvision, PIL RGB"
DINOV2_BLUR = transforms.GaussianBlur(kernel_size=9, sigma=(0.1, 2.0))


class OfficialViews:
    """DINOv2's augmentation, with the probabilities of blurring that its code has."""

    def __init__(self) -> None:
        self.first = pipeline(224, (0.32, 1.0), blur_p=0.0, solarise_p=0.0)
        self.second = pipeline(224, (0.32, 1.0), blur_p=0.9, solarise_p=0.2)
        self.local = pipeline(96, (0.05, 0.32), blur_p=0.5, solarise_p=0.0)

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """Return the crops of one image."""
        return {
            "global_crops": torch.stack([self.first(image), self.second(image)]),
            "local_crops": torch.stack([self.local(image) for _ in range(8)]),
        }


class OfficialPair:
    """VICReg's augmentation. MLVICX's differs in its blur, which takes several times longer."""

    def __init__(self) -> None:
        self.first = pipeline(224, (0.08, 1.0), blur_p=1.0, solarise_p=0.0, blur=pillow_blur)
        self.second = pipeline(224, (0.08, 1.0), blur_p=0.1, solarise_p=0.2, blur=pillow_blur)

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """Return the views of one image."""
        return {"views": torch.stack([self.first(image), self.second(image)])}


def pillow_blur(image: Image.Image) -> Image.Image:
    """Blur an image by a radius from 0.1 to 2 pixels, as VICReg does."""
    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def pipeline(
    size: int,
    scale: tuple[float, float],
    *,
    blur_p: float,
    solarise_p: float,
    blur: Callable[[Image.Image], Image.Image] = DINOV2_BLUR,
) -> transforms.Compose:
    """Return the steps that the official codes share, with their numbers."""
    jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(
                size, scale=scale, interpolation=InterpolationMode.BICUBIC
            ),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([blur], p=blur_p),
            transforms.RandomSolarize(threshold=128, p=solarise_p),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )


def fake_radiograph(side: int) -> NDArray[np.uint8]:
    """Return a grey image (side, side) of smooth shapes and noise."""
    rng = np.random.default_rng(0)
    shapes = cv2.resize(rng.uniform(20, 235, (8, 8)), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(shapes + rng.normal(0, 6, (side, side)), 0, 255).astype(np.uint8)


def measure(functions: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds per round of functions that take turns, after two rounds unmeasured."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    order = random.Random(0)
    for number in range(-2, rounds):
        # In a fixed order, one function would always find the caches as the slowest leaves them.
        order.shuffle(names)
        for name in names:
            start = time.thread_time()
            functions[name](number + 2)
            if number >= 0:
                times[name].append(1000 * (time.thread_time() - start))
    return times


def compare(
    title: str,
    official: Callable[[Image.Image], object],
    ours: dict[str, Views],
    grey: NDArray[np.uint8],
    rounds: int,
) -> None:
    """Measure and print a table of views and what they are compared with."""
    colour = Image.fromarray(grey).convert("RGB")
    functions: dict[str, Callable[[int], object]] = {REFERENCE: lambda _: official(colour)}
    for name, views in ours.items():
        functions[name] = lambda number, views=views: views(
            grey, np.random.default_rng((0, 0, number))
        )
    times = measure(functions, rounds)
    print(f"{title} from {grey.shape[0]} x {grey.shape[1]}, {rounds} rounds\n")
    print("| views | ms per image, median | images/s per core | ratio |\n|---|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        pairs = zip(values, times[REFERENCE], strict=True)
        ratio = statistics.median(value / reference for value, reference in pairs)
        print(f"| {name} | {median:.2f} | {1000 / median:.0f} | {ratio:.3f} |")
    print()


def main() -> None:
    """Measure and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    grey = fake_radiograph(options.side)
    crops: dict[str, Views] = {
        "MultiCrop, dinov2": MultiCrop(preset="dinov2"),
        "MultiCrop, radiograph": MultiCrop(),
        "MultiCrop, dinov2, 3 channels": MultiCrop(preset="dinov2", in_chans=3),
    }
    pairs: dict[str, Views] = {
        "PairViews, vicreg": PairViews(preset="vicreg"),
        "PairViews, radiograph": PairViews(),
        "PairViews, vicreg, resampling pillow": PairViews(preset="vicreg", resampling="pillow"),
    }
    compare("2 x 224 + 8 x 96", OfficialViews(), crops, grey, options.rounds)
    compare("2 x 224", OfficialPair(), pairs, grey, options.rounds)

    grids = {f"{side} x {side}": BlockMasking((side, side)) for side in (14, 16, 32, 37)}
    maskers: dict[str, Callable[[int], object]] = {
        name: lambda number, masking=masking: masking.collate_masks(
            128, np.random.default_rng((0, number))
        )
        for name, masking in grids.items()
    }
    print("| grid | ms for the masks of 2 x 64 crops, median |\n|---|---|")
    for name, values in measure(maskers, options.rounds).items():
        print(f"| {name} | {statistics.median(values):.2f} |")


if __name__ == "__main__":
    main()

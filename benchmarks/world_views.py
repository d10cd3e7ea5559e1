"""Time of the views of the world model over the same views by torchvision on a PIL image.

    python benchmarks/world_views.py [--side 512 --rounds 100]

Both jitter a decoded image, cut two crops of 224 pixels, distort a copy of each and normalise all
four to float32 tensors: from a grey image for ours, an RGB one for the reference, as the released
CheXWorld code does it. The methods take turns on the same image on one thread, and its processor
time is counted. The masks of a batch are timed beside them.
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tf
from views import IMAGENET_MEAN, IMAGENET_STD, REFERENCE, fake_radiograph, measure

from cxrssl.views import MultiBlockMasking, WorldViews

SIZE = 224


class ReferenceViews:
    """Two crops of one RGB image, clean and distorted, step by step on PIL images."""

    def __init__(self) -> None:
        jitter = transforms.ColorJitter(brightness=0.4, contrast=0.4)
        self.jitter = transforms.RandomApply([jitter], p=0.8)
        self.to_tensor = transforms.Compose(
            [
                transforms.Grayscale(3),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __call__(self, image: Image.Image) -> dict[str, Tensor]:
        """Return the views of one image."""
        image = self.jitter(image)
        flips = [random.random() < 0.5 for _ in range(2)]
        first, second = (tf.hflip(image) if flip else image for flip in flips)
        top, left, height, width = transforms.RandomResizedCrop.get_params(
            first, scale=[0.3, 1.0], ratio=[3 / 4, 4 / 3]
        )
        below = random.randint(0, image.height - height)
        right = random.randint(0, image.width - width)
        targets = [
            tf.resized_crop(whole, *box, [SIZE, SIZE], InterpolationMode.BICUBIC)
            for whole, box in (
                (first, (top, left, height, width)),
                (second, (below, right, height, width)),
            )
        ]
        contexts, actions = zip(*(self._distort(target) for target in targets), strict=True)
        mirrored, reach = float(flips[0] != flips[1]), (image.width - left - right) / width
        down, across = (below - top) / height, (right - left) / width
        return {
            "context": torch.stack([self.to_tensor(context) for context in contexts]),
            "target": torch.stack([self.to_tensor(target) for target in targets]),
            "action": torch.tensor(actions),
            "offset": torch.tensor(
                [[-down, -across, mirrored, reach], [down, across, mirrored, reach]]
            ),
        }

    @staticmethod
    def _distort(image: Image.Image) -> tuple[Image.Image, list[float]]:
        action = [1.0, 1.0, 1.0, 0.0, 0.0]
        if random.random() < 0.8:
            action[0] = random.uniform(0.6, 1.4)
            action[1] = random.uniform(0.6, 1.4)
            action[2] = math.exp(random.uniform(math.log(0.5), math.log(2.0)))
            image = tf.adjust_brightness(image, action[0])
            image = tf.adjust_contrast(image, action[1])
            image = tf.adjust_gamma(image, action[2])
        if random.random() < 0.2:
            action[3] = random.uniform(0.1, 2.0)
            image = image.filter(ImageFilter.GaussianBlur(action[3]))
        return image, action


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)

    grey = fake_radiograph(options.side)
    colour = Image.fromarray(grey).convert("RGB")
    reference = ReferenceViews()
    ours = {
        "WorldViews, pillow": WorldViews(),
        "WorldViews, area": WorldViews(resampling="area"),
        "WorldViews, pillow, 3 channels": WorldViews(in_chans=3),
    }
    functions: dict[str, Callable[[int], object]] = {REFERENCE: lambda _: reference(colour)}
    for name, views in ours.items():
        functions[name] = lambda number, views=views: views(
            grey, np.random.default_rng((0, 0, number))
        )
    times = measure(functions, options.rounds)
    # Boxes differ in size, so that a mean and not a median tells what an epoch takes.
    base = statistics.mean(times[REFERENCE])
    print(f"2 x 2 x {SIZE} from {options.side} x {options.side}, {options.rounds} rounds\n")
    print("| views | ms per image, mean | images/s per core | ratio |\n|---|---|---|---|")
    for name, values in times.items():
        mean = statistics.mean(values)
        print(f"| {name} | {mean:.2f} | {1000 / mean:.0f} | {mean / base:.3f} |")

    maskers: dict[str, Callable[[int], object]] = {}
    for side in (14, 16, 32):
        for name, masking in (
            ("corrected, merged", WorldViews(image_size=16 * side).masking),
            ("ijepa", MultiBlockMasking((side, side))),
        ):
            maskers[f"{side} x {side}, {name}"] = lambda number, masking=masking: (
                masking.collate_masks(128, np.random.default_rng((0, number)))
            )
    print("\n| grid | ms for the masks of 128 images, median |\n|---|---|")
    for name, values in measure(maskers, options.rounds).items():
        print(f"| {name} | {statistics.median(values):.2f} |")


if __name__ == "__main__":
    main()

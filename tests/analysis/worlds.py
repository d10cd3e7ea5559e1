"""A world that can be known exactly, and models that know all of it or nothing.

A patch is one grey level, its number. Images count their patches row by row, so that any patch of a
crop tells where in its image the crop lies; distortions add to all numbers, modulo 256.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from cxrssl.views import EvalView

SIDE, PATCH = 4, 3
SIZE = SIDE * PATCH
N = SIDE**2


def world_image(first, side=SIDE):
    """Return an image whose patches are numbered from ``first``, row by row."""
    numbers = (first + np.arange(side**2)).reshape(side, side) % 256
    return numbers.astype(np.uint8).repeat(PATCH, 0).repeat(PATCH, 1)


class Pair(NamedTuple):
    crops: tuple
    offset: np.ndarray


class FewMasks:
    """Three masked patches, and six that are seen; one image at a time."""

    def collate_masks(self, n_images, rng):
        order = rng.permuted(np.tile(np.arange(N), (n_images, 1)), axis=1)
        return np.sort(order[:, None, 3:9]), np.sort(order[:, None, :3])


class WorldOfNumbers:
    image_size, patch_size, mean, std = SIZE, PATCH, 0.5, 0.25
    masking = FewMasks()

    def eval_view(self):
        return EvalView(image_size=SIZE, mean=self.mean, std=self.std)

    def to_tensor(self, image):
        return self.eval_view().to_tensor(np.ascontiguousarray(image))

    def jitter(self, image, rng, probability=None):
        return image + np.uint8(rng.integers(256))

    def distort(self, crop, rng, probability=None):
        assert probability == 1
        shift = np.uint8(rng.integers(1, 256))
        return crop + shift, np.array([shift, 1, 1, 0, 0], dtype=np.float32)

    def crop_pair(self, image, rng):
        width = image.shape[1]
        crops, corners = [], []
        for _ in range(2):
            flip = bool(rng.integers(2))
            top, left = PATCH * rng.integers(0, width // PATCH - SIDE + 1, size=2)
            frame = image[:, ::-1] if flip else image
            crops.append(frame[top : top + SIZE, left : left + SIZE])
            corners.append((top, left, flip))
        offset = [self._relative(corners[v], corners[1 - v], width) for v in range(2)]
        return Pair(tuple(crops), np.array(offset, dtype=np.float32))

    @staticmethod
    def _relative(it, other, width):
        reach = (width - it[1] - other[1]) / SIZE
        return (it[0] - other[0]) / SIZE, (it[1] - other[1]) / SIZE, it[2] != other[2], reach


class Oracle(nn.Module):
    """Reads numbers and knows how they go on; ``row`` is how many an image has in a row."""

    def __init__(self, row=SIDE):
        super().__init__()
        self.views = WorldOfNumbers()
        self.row = row
        table = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
        self.table = nn.Parameter(table, requires_grad=False)
        self.batches = []

    def numbers(self, images):
        grey = images[:, 0, ::PATCH, ::PATCH] * self.views.std + self.views.mean
        return (grey * 255).round().long()  # (B, G, G)

    def targets(self, images):
        return self.table[self.numbers(images).flatten(1)]

    def predict(self, context, *, context_index=None, target_index=None, offset=None, action=None):
        self.batches.append(len(context))
        numbers = self.numbers(context)
        if action is not None:
            numbers = numbers - action[:, :1, None].long()
        if context_index is not None:
            self.check_masks(context_index, target_index)
        v, u = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")
        v, u = v.expand(len(context), -1, -1), u.expand(len(context), -1, -1)
        if offset is not None:
            dy, dx, flipped, reach = (
                (offset.T * torch.tensor([[4.0], [4], [1], [4]])).round().long()
            )
            u = u + dy[:, None, None]
            mirrored = reach[:, None, None] - 1 - v
            v = torch.where(flipped[:, None, None] == 1, mirrored, v + dx[:, None, None])
        step = numbers[:, :1, 1:2] - numbers[:, :1, :1]  # -1 in a mirrored context
        told = numbers[:, :1, :1] + self.row * u + step * v
        tokens = self.table[told.flatten(1) % 256]
        if target_index is None:
            return tokens
        return tokens.gather(1, target_index[..., None].expand(-1, -1, tokens.shape[-1]))

    @staticmethod
    def check_masks(context_index, target_index):
        assert not set(context_index[0].tolist()) & set(target_index[0].tolist())


class Constant(Oracle):
    """Predicts the same everywhere."""

    def predict(self, context, **asked):
        return torch.zeros_like(super().predict(context, **asked))


class Collapsed(Constant):
    """Targets are the same everywhere, too."""

    def targets(self, images):
        return torch.zeros_like(super().targets(images))


class Broken(Oracle):
    def targets(self, images):
        return super().targets(images) * torch.nan

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

    def __init__(self, n_patches):
        self.n_patches = n_patches

    def collate_masks(self, n_images, rng):
        order = rng.permuted(np.tile(np.arange(self.n_patches), (n_images, 1)), axis=1)
        return np.sort(order[:, None, 3:9]), np.sort(order[:, None, :3])


class WorldOfNumbers:
    patch_size, mean, std = PATCH, 0.5, 0.25

    def __init__(self, side=SIDE):
        self.side, self.image_size = side, side * PATCH
        self.masking = FewMasks(side**2)

    def eval_view(self):
        return EvalView(image_size=self.image_size, mean=self.mean, std=self.std)

    def to_tensor(self, image):
        return self.eval_view().to_tensor(np.ascontiguousarray(image))

    def jitter(self, image, rng, probability=None):
        return image + np.uint8(rng.integers(256))

    def distort(self, crop, rng, probability=None):
        assert probability == 1
        shift = np.uint8(rng.integers(1, 256))
        return crop + shift, np.array([shift, 1, 1, 0, 0], dtype=np.float32)

    def crop_pair(self, image, rng):
        size, width = self.image_size, image.shape[1]
        crops, corners = [], []
        for _ in range(2):
            flip = bool(rng.integers(2))
            top, left = PATCH * rng.integers(0, width // PATCH - self.side + 1, size=2)
            frame = image[:, ::-1] if flip else image
            crops.append(frame[top : top + size, left : left + size])
            corners.append((top, left, flip))
        offset = [self._relative(corners[v], corners[1 - v], width) for v in range(2)]
        return Pair(tuple(crops), np.array(offset, dtype=np.float32))

    def _relative(self, it, other, width):
        size = self.image_size
        reach = (width - it[1] - other[1]) / size
        return (it[0] - other[0]) / size, (it[1] - other[1]) / size, it[2] != other[2], reach


class Oracle(nn.Module):
    """Reads numbers and knows how they go on; ``row`` is how many an image has in a row."""

    def __init__(self, row=SIDE, side=SIDE):
        super().__init__()
        self.views = WorldOfNumbers(side)
        self.row, self.side = row, side
        table = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
        self.table = nn.Parameter(table, requires_grad=False)
        self.batches, self.encoded = [], []

    def numbers(self, images):
        grey = images[:, 0, ::PATCH, ::PATCH] * self.views.std + self.views.mean
        return (grey * 255).round().long()  # (B, G, G)

    def targets(self, images):
        return self.table[self.numbers(images).flatten(1)]

    def encode_context(self, images, index=None):
        """Return all numbers (B, N, 1), and the patches that are seen behind them if told."""
        self.encoded.append(len(images))
        numbers = self.numbers(images).flatten(1)[..., None]
        if index is None:
            return numbers.float()
        seen = torch.zeros_like(numbers).scatter(1, index[..., None], 1)
        return torch.cat([numbers, seen], dim=-1).float()

    def predict(self, context, *, target_index=None, offset=None, action=None):
        self.batches.append(len(context))
        numbers = context[..., 0].round().long().unflatten(1, (self.side, self.side))
        if action is not None:
            numbers = numbers - action[:, :1, None].long()
        if context.shape[-1] > 1:
            assert not context[..., 1].gather(1, target_index).any()
        v, u = torch.meshgrid(torch.arange(self.side), torch.arange(self.side), indexing="xy")
        v, u = v.expand(len(context), -1, -1), u.expand(len(context), -1, -1)
        if offset is not None:
            scale = torch.tensor([self.side, self.side, 1, self.side])[:, None]
            dy, dx, flipped, reach = (offset.T * scale).round().long()
            u = u + dy[:, None, None]
            mirrored = reach[:, None, None] - 1 - v
            v = torch.where(flipped[:, None, None] == 1, mirrored, v + dx[:, None, None])
        step = numbers[:, :1, 1:2] - numbers[:, :1, :1]  # -1 in a mirrored context
        told = numbers[:, :1, :1] + self.row * u + step * v
        return chosen(self.table[told.flatten(1) % 256], target_index)


def chosen(tokens, index):
    """Return the tokens (B, K, D) of some patches (B, K) of all (B, N, D)."""
    if index is None:
        return tokens
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


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


class PositionOnly(Oracle):
    """Targets carry their place beside their content, of which the model knows nothing."""

    def __init__(self, content=1.0, row=SIDE):
        super().__init__(row)
        places = torch.randn(N, 16, generator=torch.Generator().manual_seed(1))
        self.places = nn.Parameter(places, requires_grad=False)
        self.content = content

    def targets(self, images):
        return self.places + self.content * super().targets(images)

    def predict(self, context, *, target_index=None, offset=None, action=None):
        return chosen(self.places.expand(len(context), -1, -1), target_index)


class AlikeViews(WorldOfNumbers):
    """Views that change no grey value."""

    def jitter(self, image, rng, probability=None):
        return image

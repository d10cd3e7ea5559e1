"""The phantom as a data set that needs no files."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.phantom import Phantom
from cxrssl.data.phantom.findings import FINDINGS
from cxrssl.data.phantom.report import findings_text
from cxrssl.data.sources import ImageSource, PhantomSource
from cxrssl.data.targets import MaskReader
from cxrssl.errors import InputError
from cxrssl.views.base import Views

__all__ = ["PhantomDataModule"]

_DRAWN_BYTES = 2**28
"""Images, and masks, that fit in here are drawn at the start and kept; more when shown."""

_TEXT_STREAM = 2


class PhantomDataModule(CXRDataModule):
    """Drawn chest radiographs with labels, masks and reports of findings, split by patient.

    Args:
        n_images: Images in all splits together.
        size: Side of an image in pixels, H = W.
        phantom_seed: Seed of the images; another seed draws other patients.
        severity: How large findings are within their ranges; see `Phantom`.
        views: See `CXRDataModule`, as for all that follow.
        batch_size: Images per process and batch.
        num_workers: Worker processes of each loader.
        split: Shares of train, val and test.
        seed: Seed of order and views.
        max_corrupt: Share of the images that may be unreadable; drawn images never are.
        probe_images: Most images that `probe_dataloader` shows.
        pin_memory: None pins where a GPU is there.
        subset: See `CXRDataModule`.
        subset_seed: See `CXRDataModule`.
    """

    def __init__(
        self,
        n_images: int = 2000,
        size: int = 128,
        phantom_seed: int = 0,
        severity: float = 1.0,
        *,
        views: Views | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        seed: int | None = None,
        max_corrupt: float = 0.01,
        probe_images: int = 2000,
        pin_memory: bool | None = None,
        subset: int | float | None = None,
        subset_seed: int = 0,
    ) -> None:
        super().__init__(
            views=views,
            batch_size=batch_size,
            num_workers=num_workers,
            split=split,
            seed=seed,
            max_corrupt=max_corrupt,
            probe_images=probe_images,
            pin_memory=pin_memory,
            subset=subset,
            subset_seed=subset_seed,
        )
        if n_images < 1:
            raise InputError(f"n_images must be at least 1, got {n_images}")
        self.n_images = n_images
        self.phantom = Phantom(size, phantom_seed, severity=severity)
        self._drawn: NDArray[np.uint8] | None = None
        self._drawn_masks: dict[tuple[str, ...], NDArray[np.uint8]] = {}

    def make_index(self) -> pd.DataFrame:
        """Return the index of the drawn images, with templated reports."""
        index = self.phantom.index(self.n_images, self.split)
        texts = [
            findings_text(
                {name: int(row[name]) for name in FINDINGS},
                np.random.default_rng((self.phantom.seed, number, _TEXT_STREAM)),
            )
            for number, row in enumerate(index[list(FINDINGS)].to_dict("records"))
        ]
        return index.assign(text=pd.array(texts, "string"))

    def make_source(self, rows: pd.DataFrame) -> ImageSource:
        """Return the drawn images of some rows."""
        numbers = _numbers(rows)
        if self._drawn is None and self._fits(1):
            # Once and before any worker is forked, so that all of them share the pixels.
            self._drawn = np.stack([self.phantom.pixels(n) for n in range(self.n_images)])
        return PhantomSource(self.phantom, numbers, self._drawn)

    @property
    def structures(self) -> list[str]:
        """Structures every drawn image has masks of."""
        return ["lungs", "heart", *FINDINGS]

    def has_mask(self, rows: pd.DataFrame, structure: str) -> NDArray[np.bool_]:
        """Return that all rows have a mask."""
        return np.ones(len(rows), dtype=np.bool_)

    def make_masks(self, rows: pd.DataFrame, structures: Sequence[str]) -> MaskReader:
        """Return the masks of some rows."""
        names = tuple(structures)
        if names not in self._drawn_masks and self._fits(len(names)):
            # As for the pixels; other masks than those wanted now are forgotten.
            drawn = np.stack([_masks(self.phantom, n, names) for n in range(self.n_images)])
            self._drawn_masks = {names: drawn}
        return _PhantomMasks(self.phantom, _numbers(rows), names, self._drawn_masks.get(names))

    def image_keys(self, rows: pd.DataFrame) -> list[str]:
        """Return names with the settings of the phantom, which draws others under the same path."""
        phantom = self.phantom
        settings = f"{phantom.size} {phantom.seed} {phantom.severity} {phantom.prevalence}"
        return [f"{path} {settings}" for path in rows["path"]]

    def _fits(self, layers: int) -> bool:
        return self.n_images * layers * self.phantom.size**2 <= _DRAWN_BYTES


class _PhantomMasks:
    """Masks that are drawn when they are read, or before.

    Args:
        phantom: The generator.
        numbers: Number in the phantom (n,) of each image.
        structures: K structures.
        drawn: Masks (m, K, H, W) of the phantom's first m images, where they have been drawn.
    """

    def __init__(
        self,
        phantom: Phantom,
        numbers: NDArray[np.int64],
        structures: Sequence[str],
        drawn: NDArray[np.uint8] | None,
    ) -> None:
        self._phantom = phantom
        self._numbers = numbers
        self._structures = structures
        self._drawn = drawn

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        drawn = int(self._numbers[number])
        if self._drawn is not None:
            kept: NDArray[np.uint8] = self._drawn[drawn]
            return kept
        return _masks(self._phantom, drawn, self._structures)


def _masks(phantom: Phantom, number: int, structures: Sequence[str]) -> NDArray[np.uint8]:
    """Return masks (K, H, W) of an image."""
    masks = phantom.draw(number).masks
    return np.stack([masks[name] for name in structures]).astype(np.uint8)


def _numbers(rows: pd.DataFrame) -> NDArray[np.int64]:
    """Return the numbers (n,) in the phantom of some rows."""
    return rows["path"].str.removeprefix("phantom/").to_numpy().astype(np.int64)

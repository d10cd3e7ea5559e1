"""Several datasets as one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.duplicates import DROPPED, read_fingerprints
from cxrssl.data.index import load_index
from cxrssl.data.joined import JoinedImages, JoinedMasks, SomeMasks
from cxrssl.data.merging import (
    SOURCE,
    cap_sources,
    drop_copies,
    drop_held_out,
    drop_near,
    join,
    weigh,
)
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.vocabulary import to_common
from cxrssl.data.sources import ImageSource
from cxrssl.data.targets import MaskReader
from cxrssl.data.validate import label_names
from cxrssl.errors import InputError

__all__ = ["Merged"]

T = TypeVar("T")


class Merged(CXRDataModule):
    """The union of datasets, for pretraining on several and for measuring across them.

    Every dataset keeps its splits, and reads its images and masks itself. An image that several
    of them have, known by its file or by the name it was first released under, is kept once; a
    patient who stands in another split of another dataset leaves training; images of the indices
    in `held_out` are left out of all splits. What was left out and why is in `dropped`.

    Args:
        datasets: Data modules by the name of their source, without views.
        weights: How often an image of a source is drawn relative to others, 1 where absent.
        balance: Exponent of the size of a source in how often it is drawn: 1 as it is, 0 each
            source equally often.
        caps: Most training images by source; patients are taken whole, others with another
            `subset_seed`.
        deduplicate: ``origin`` keeps one of the images with the same file or origin, and one of
            those that look the same where there are `fingerprints`; ``off`` only one of each file.
        fingerprints: File that ``cxrssl check`` wrote of all images, those held out among them.
        held_out: Indices of images that are to be evaluated on, files as `load_index` reads.
        level: What being held out means: ``L1`` no such image, ``L2`` no image of such a patient.
        vocabulary: ``common`` brings labels to the vocabulary that all releases share; ``release``
            keeps their names, and a label is missing where a dataset does not have it.
        options: See `CXRDataModule`.

    Raises:
        InputError: If there is no dataset, a weight or cap names none of them, or nothing is left
            to train on.
    """

    def __init__(
        self,
        datasets: dict[str, CXRDataModule],
        *,
        weights: dict[str, float] | None = None,
        balance: float = 1.0,
        caps: dict[str, int] | None = None,
        deduplicate: Literal["origin", "off"] = "origin",
        fingerprints: str | None = None,
        held_out: list[str] | None = None,
        level: Literal["L1", "L2"] = "L2",
        vocabulary: Literal["common", "release"] = "common",
        **options: Any,
    ) -> None:
        super().__init__(index=None, root=None, columns=None, labels=None, **options)
        if not datasets:
            raise InputError("Merged has no datasets: give at least one")
        for name, module in datasets.items():
            if module.subset is not None or module.polarity != "stored":
                raise InputError(
                    f"subset and polarity of the dataset {name!r} would have no effect: set them "
                    "at Merged, or caps for the dataset"
                )
        self.datasets = datasets
        self.weights = _known("weights", weights, datasets)
        self.balance = balance
        self.caps = _known("caps", caps, datasets)
        self.deduplicate = deduplicate
        self.fingerprints = fingerprints
        self.held_out = held_out or []
        self.level = level
        self.vocabulary = vocabulary
        self.dropped = pd.DataFrame(columns=list(DROPPED))
        self._source_of: pd.Series[str] | None = None

    def make_index(self) -> pd.DataFrame:
        """Return the index of the union."""
        joined = join({name: self._labelled_index(each) for name, each in self.datasets.items()})
        kept, copies = drop_copies(joined, origins=self.deduplicate == "origin")
        prints = None if self.fingerprints is None else read_fingerprints(self.fingerprints)
        tables = [copies]
        if prints is not None and self.deduplicate == "origin":
            kept, near = drop_near(kept, prints)
            tables.append(near)
        held_out = [load_index(file) for file in self.held_out]
        patients = self.level == "L2"
        kept, leaks = drop_held_out(kept, held_out, patients=patients, fingerprints=prints)
        kept = cap_sources(kept, self.caps, self.subset_seed).reset_index(drop=True)
        self.dropped = pd.concat([*tables, leaks], ignore_index=True)
        self._report(kept)
        self._source_of = kept.set_index("path")[SOURCE]
        return kept.drop(columns=SOURCE)

    def _labelled_index(self, module: CXRDataModule) -> pd.DataFrame:
        """Return the index of a dataset with labels of the vocabulary that is asked for."""
        index = module.index
        if self.vocabulary == "release":
            return index
        names = label_names(index)
        own = (
            module.common_labels(index) if isinstance(module, Release) else to_common(index, names)
        )
        return pd.concat([index.drop(columns=names), own], axis=1)

    def _report(self, kept: pd.DataFrame) -> None:
        train = kept.loc[kept["split"] == "train", SOURCE].value_counts()
        if train.empty:
            raise InputError(
                f"no training image is left of {', '.join(self.datasets)}: see held_out, caps and "
                "the splits of the datasets"
            )
        lines = [f"{name}: {train.get(name, 0):,}" for name in self.datasets]
        reasons = self.dropped["reason"].value_counts()
        lines += [f"left out, {reason}: {number:,}" for reason, number in reasons.items()]
        rank_zero_info(f"Training images: {train.sum():,} ({'; '.join(lines)})")

    def sampling_weights(self, rows: pd.DataFrame) -> NDArray[np.float64] | None:
        """Return the weights (n,) of the training rows, None where all are equal."""
        return weigh(self._sources(rows), self.weights, self.balance)

    def make_source(self, rows: pd.DataFrame) -> ImageSource:
        """Return the images of some rows, each read by its own dataset."""
        return JoinedImages(*self._parts(rows, lambda module, part: module.make_source(part)))

    @property
    def structures(self) -> list[str]:
        """Structures that any of the datasets has masks of."""
        return list(
            dict.fromkeys(n for module in self.datasets.values() for n in module.structures)
        )

    def has_mask(self, rows: pd.DataFrame, structure: str) -> NDArray[np.bool_]:
        """Return which rows have a mask of a structure, be it empty."""
        known = np.zeros(len(rows), dtype=np.bool_)
        sources = self._sources(rows)
        for name, module in self.datasets.items():
            if structure in module.structures:
                place = (sources == name).to_numpy()
                known[place] = module.has_mask(rows[place], structure)
        return known

    def make_masks(self, rows: pd.DataFrame, structures: Sequence[str]) -> MaskReader:
        """Return the masks of some rows, each read by its own dataset; unknown if it has none."""

        def masks(module: CXRDataModule, part: pd.DataFrame) -> SomeMasks:
            there = [name for name in structures if name in module.structures]
            return SomeMasks(module.make_masks(part, there) if there else None, there, structures)

        return JoinedMasks(*self._parts(rows, masks))

    def image_keys(self, rows: pd.DataFrame) -> list[str]:
        """Return what cached features of some rows are found by."""
        parts, which, place = self._parts(rows, lambda module, part: module.image_keys(part))
        return [parts[part][number] for part, number in zip(which, place, strict=True)]

    @property
    def image_folder(self) -> str:
        """Nothing: the paths of several datasets start from no one folder."""
        return ""

    def _sources(self, rows: pd.DataFrame) -> "pd.Series[str]":
        """Return the source (n,) of each row."""
        if self._source_of is None:
            _ = self.index
        assert self._source_of is not None
        return self._source_of.loc[rows["path"]].set_axis(rows.index)

    def _parts(
        self, rows: pd.DataFrame, make: Callable[[CXRDataModule, pd.DataFrame], T]
    ) -> tuple[list[T], NDArray[np.int64], NDArray[np.int64]]:
        """Return what is made of the rows of each dataset, and where each row is found in it.

        Returns:
            The parts; which of them has each row (n,); and at which place (n,).
        """
        sources = self._sources(rows)
        which = np.zeros(len(rows), dtype=np.int64)
        place = np.zeros(len(rows), dtype=np.int64)
        parts: list[T] = []
        for name, module in self.datasets.items():
            own = np.flatnonzero((sources == name).to_numpy())
            if own.size:
                which[own] = len(parts)
                place[own] = np.arange(own.size)
                parts.append(make(module, rows.iloc[own]))
        return parts, which, place


def _known(
    name: str, given: Mapping[str, Any] | None, datasets: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is said of some datasets; refuse a name or value that makes no sense."""
    for source, value in (given or {}).items():
        if source not in datasets:
            raise InputError(f"{name} names {source!r}, which is none of {', '.join(datasets)}")
        if not value > 0:
            raise InputError(f"{name} of {source!r} must be above 0, got {value}")
    return dict(given or {})

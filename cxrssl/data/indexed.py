"""Images of an index, numbered within their splits, and what is known of them."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.data.index import index_folder, load_index, other_columns
from cxrssl.data.masks import MaskSource
from cxrssl.data.packed import PackedImages, PackedMasks, PackedStore
from cxrssl.data.packed_folder import store_folder
from cxrssl.data.polarity import InvertedImages, Polarity, UprightImages
from cxrssl.data.sources import ImageFiles, ImageSource
from cxrssl.data.splits import assign_splits
from cxrssl.data.subsets import nested_subset
from cxrssl.data.targets import MaskReader, MaskRules, check_targets, labelled
from cxrssl.data.validate import MASK, label_names, validate_index
from cxrssl.errors import InputError
from cxrssl.views.base import Views
from cxrssl.views.targets import Targets

__all__ = ["IndexedImages"]


class IndexedImages(LightningDataModule):
    """The part of :class:`CXRDataModule` that knows the images and what is said of them.

    Args:
        index: See :class:`CXRDataModule`, as for all that follow.
        root: Folder that relative paths start from.
        views: Views, whose targets decide which images are shown.
        columns: Our column name to the index's name.
        labels: Label columns.
        split: Shares of train, val and test.
        seed: Seed of splits, order and views.
        masks: How the columns `mask/<structure>` are to be read.
        subset: Fewer training images.
        subset_seed: Another seed takes other patients.
        polarity: Whether images that look inverted are turned.

    Attributes:
        whole_patients: Whether an index with a patient in more than one split is refused; those
            who want to say which patients these are set it to False before they ask for the index.
    """

    whole_patients: bool = True

    def __init__(
        self,
        index: str | None,
        root: str | None,
        *,
        views: Views | None,
        columns: dict[str, str] | None,
        labels: list[str] | None,
        split: tuple[float, float, float],
        seed: int | None,
        masks: MaskRules,
        subset: int | float | None,
        subset_seed: int,
        polarity: Polarity,
    ) -> None:
        super().__init__()
        self.views = views
        self.split = split
        self.mask_rules = masks
        self.subset = subset
        self.subset_seed = subset_seed
        self.polarity = polarity
        self._source = index
        self._root = root
        self._columns = columns
        self._label_names = labels
        self._seed = seed
        self._unsplit: pd.DataFrame | None = None
        self._index: pd.DataFrame | None = None
        self._store: PackedStore | None = None
        self._shown: dict[object, pd.DataFrame] = {}
        self._inverted: InvertedImages | None = None

    # What a data set overrides.

    def make_index(self) -> pd.DataFrame:
        """Return the index; every column that `validate_index` does not know is a label."""
        source = self._source or self._root
        if source is None:
            raise InputError(
                f"{type(self).__name__} has no images: give index, a file or pattern, or root, "
                "a folder"
            )
        return load_index(
            source,
            root=self._root,
            columns=self._columns,
            labels=self._label_names,
            whole_patients=self.whole_patients,
        )

    def other_columns(self) -> pd.DataFrame:
        """Return the columns of the table that the index leaves out, row by row as in the index."""
        if self._source is None or type(self).make_index is not IndexedImages.make_index:
            return pd.DataFrame(index=self.index.index)
        return other_columns(self._source, self._columns, self.index)

    def make_source(self, rows: pd.DataFrame) -> ImageSource:
        """Return the images of some rows of the index, in their order."""
        store = self._packed()
        return ImageFiles(rows["path"]) if store is None else PackedImages(store, rows["path"])

    @property
    def structures(self) -> list[str]:
        """Structures the index has masks of."""
        return [name.removeprefix(MASK) for name in map(str, self.index) if name.startswith(MASK)]

    def has_mask(self, rows: pd.DataFrame, structure: str) -> NDArray[np.bool_]:
        """Return which rows of the index have a mask of a structure, be it empty."""
        known: NDArray[np.bool_] = rows[MASK + structure].notna().to_numpy(dtype=np.bool_)
        return known

    def make_masks(self, rows: pd.DataFrame, structures: Sequence[str]) -> MaskReader:
        """Return the masks of some rows of the index, in their order."""
        if (store := self._packed()) is not None:
            return PackedMasks(store, rows["path"], structures)
        columns = {name: rows[MASK + name].tolist() for name in structures}
        rules = self.mask_rules
        return MaskSource(
            columns,
            format=rules.format,
            frame=rules.frame,
            unknown=rules.unknown,
            resize=rules.resize,
            root=self.image_folder,
        )

    def image_keys(self, rows: pd.DataFrame) -> list[str]:
        """Return what cached features of some rows are found by: files, or names as good as those.

        Of images that are no files, a key must say all that their pixels depend on.
        """
        if (store := self._packed()) is not None:
            return [store.key(number) for number in store.numbers(rows["path"]).tolist()]
        return [str(path) for path in rows["path"]]

    def sampling_weights(self, rows: pd.DataFrame) -> NDArray[np.float64] | None:
        """Return sampling weights (n,) of the training rows; None shows each once an epoch."""
        return None

    # What callbacks, tasks and analyses ask for.

    @property
    def unsplit_index(self) -> pd.DataFrame:
        """The checked index, with the splits it says itself, read when first asked for."""
        if self._unsplit is None:
            index = self.make_index()
            self._unsplit = validate_index(index, whole_patients=self.whole_patients)
        return self._unsplit

    @property
    def index(self) -> pd.DataFrame:
        """The checked index with splits, read when first asked for."""
        if self._index is None:
            index = self.unsplit_index
            self._index = assign_splits(index, self.split, self.seed, folder=self.image_folder)
        return self._index

    @property
    def image_folder(self) -> str:
        """Folder that relative paths of the index start from; empty where it does not say."""
        source = self._source or self._root
        return "" if source is None else index_folder(source, self._root)

    @property
    def labels(self) -> list[str]:
        """Names of the findings, in the order of label tensors."""
        return label_names(self.index)

    @property
    def seed(self) -> int:
        """Seed of splits, order and views."""
        return int(os.environ.get("PL_GLOBAL_SEED", 0)) if self._seed is None else self._seed

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of a split; row i is image number i. "all" returns the index."""
        if split == "all":
            return self.index
        return self.index[self.index["split"] == split]

    def shown_rows(self, split: str) -> pd.DataFrame:
        """Return the rows that the loaders of a split show.

        Views with targets are shown the images that have the report, any of the labels and any of
        the masks, as far as they are wanted. Of the training images, `subset` are shown.

        Raises:
            InputError: If the index does not have the targets, or no image of the split does.
        """
        # Each corrupt image is named by its row, and a subset of a large index takes a while.
        key = split, self._targets(), self.subset, self.subset_seed
        if key not in self._shown:
            self._shown[key] = self._choose(split)
        return self._shown[key]

    def shown_source(self, rows: pd.DataFrame) -> ImageSource:
        """Return the images of some rows of the index as they are shown, in their order.

        They are those of `make_source`, turned where the polarity is checked.
        """
        source = self.make_source(rows)
        if self.polarity == "stored":
            return source
        if self._inverted is None:
            self._inverted = InvertedImages(len(self.index))
        return UprightImages(source, self._inverted, self.index.index.get_indexer(rows.index))

    def image_name(self, number: int, split: str = "train") -> str:
        """Return the file of an image, for messages."""
        return self.describe_images([number], split)[0]

    def describe_images(self, numbers: Sequence[int], split: str = "train") -> list[str]:
        """Return the files of several images, for messages."""
        return [str(path) for path in self.shown_rows(split)["path"].iloc[list(numbers)]]

    def images(self, numbers: Sequence[int], split: str = "train") -> Tensor:
        """Return the deterministic view (n, C, H, W) of some images, for figures.

        Raises:
            ImageReadError: If one of them cannot be read.
        """
        source, view = self.shown_source(self.shown_rows(split)), self._views().eval_view()
        return torch.stack([view(source[number])["image"] for number in numbers])

    # Parts of the above.

    def _packed(self) -> PackedStore | None:
        """Return the packed store that paths start from, if it is one."""
        folder = store_folder(self.image_folder)
        if folder is not None and self._store is None:
            self._store = PackedStore(folder)
        return self._store

    def _views(self) -> Views:
        if self.views is None:
            raise InputError(f"{type(self).__name__} needs views: pass objective.views")
        return self.views

    def _targets(self) -> Targets:
        return Targets() if self.views is None else self.views.targets

    def _labelled(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows (n,) have the targets."""
        targets = self._targets()
        check_targets(self.index, targets, self.structures)
        known = labelled(rows, targets)
        if targets.structures:
            masked = [self.has_mask(rows, name) for name in targets.structures]
            known &= np.logical_or.reduce(masked)
        return known

    def _choose(self, split: str) -> pd.DataFrame:
        rows = self.rows(split)
        if split == "all":
            return rows
        shown = rows[self._labelled(rows)] if self._targets().wanted else rows
        if len(rows) and shown.empty:
            raise InputError(
                f"no image of the split {split!r} has {self._wanted()}: nothing can be learnt or "
                "measured there"
            )
        if self.subset is None or split != "train" or shown.empty:
            return shown
        folder = self.image_folder
        return shown.iloc[nested_subset(shown, self.subset, self.subset_seed, folder=folder)]

    def _wanted(self) -> str:
        """Return the targets in words."""
        targets = self._targets()
        kinds = (
            ("any label of", targets.findings),
            ("any mask of", targets.structures),
            ("a", ["report"] * targets.text),
        )
        return " and ".join(f"{kind} {', '.join(names)}" for kind, names in kinds if names)

"""From an index to batches: the Lightning data module every data set shares."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrssl.data.caching import Encoding, encode_once
from cxrssl.data.dataset import EvalDataset, ViewDataset
from cxrssl.data.failures import FailureLog
from cxrssl.data.features import FeatureDataset, FeatureDtype, FeatureStore
from cxrssl.data.index import index_folder, load_index
from cxrssl.data.loader import PlanLoader, plan_loader
from cxrssl.data.masks import MaskSource
from cxrssl.data.resume import close_epoch, position
from cxrssl.data.sampler import FixedBatchSampler, PlannedBatchSampler
from cxrssl.data.sources import ImageFiles, ImageSource
from cxrssl.data.splits import assign_splits, stable_fractions
from cxrssl.data.subsets import nested_subset
from cxrssl.data.targets import MaskReader, MaskRules, TargetTable, check_targets, labelled
from cxrssl.data.task_dataset import TaskDataset
from cxrssl.data.validate import MASK, label_names, validate_index
from cxrssl.errors import InputError
from cxrssl.views.base import Views
from cxrssl.views.targets import Targets

__all__ = ["CXRDataModule"]


class CXRDataModule(LightningDataModule):
    """Images of an index as batches of an objective's views.

    Images are numbered from 0 within their split ("train", "val", "test"), in the order of the
    index; the split "all" is the whole index. Batches are the same for any number of workers, and
    the global batch is the same however many processes share it. Every checkpoint holds the
    position in the epoch, counted in images trained on, so that a resumed run goes on with the
    very next batch. The loaders shard themselves: both settings of the trainer's
    ``use_distributed_sampler`` give the same batches.

    Views with targets, as tasks have them, get labelled images: those with any of the wanted
    labels, masks or the report, each with its targets, and the deterministic view of them outside
    training; see `TaskDataset`.

    A data set subclasses this and overrides `make_index`, and `make_source` (with masks,
    `structures`, `has_mask` and `make_masks` too) where its images are not files.

    Args:
        index: Index to read: a CSV or Parquet file, a pattern, or a folder of images.
        root: Folder that relative paths start from; without an index, the folder of the images.
        views: Views to train on, `objective.views`.
        batch_size: Images per process and batch.
        num_workers: Worker processes of each loader.
        columns: Our column name to the index's name, where they differ.
        labels: Label columns; found by their values if None.
        split: Shares of train, val and test, for an index without splits.
        seed: Seed of splits, order and views; None takes PL_GLOBAL_SEED of the environment, as
            `lightning.seed_everything` sets it, or else 0.
        max_corrupt: Share of the images that may be unreadable before the run stops; a single
            one never stops it.
        probe_images: Most images that `probe_dataloader` shows.
        pin_memory: None pins where a GPU is there.
        masks: How the columns `mask/<structure>` are to be read.
        subset: Fewer training images: a share of them if it is a float of at most 1, else their
            number. Patients are taken whole; smaller subsets lie within larger ones.
        subset_seed: Another seed takes other patients.
    """

    def __init__(
        self,
        index: str | None = None,
        root: str | None = None,
        *,
        views: Views | None = None,
        batch_size: int = 64,
        num_workers: int = 2,
        columns: dict[str, str] | None = None,
        labels: list[str] | None = None,
        split: tuple[float, float, float] = (0.8, 0.1, 0.1),
        seed: int | None = None,
        max_corrupt: float = 0.01,
        probe_images: int = 2000,
        pin_memory: bool | None = None,
        masks: MaskRules = MaskRules(),
        subset: float | int | None = None,
        subset_seed: int = 0,
    ) -> None:
        super().__init__()
        _check("batch_size", batch_size, batch_size >= 1, "at least 1")
        _check("num_workers", num_workers, num_workers >= 0, "at least 0")
        _check("seed", seed, seed is None or seed >= 0, "at least 0")
        _check("max_corrupt", max_corrupt, 0 <= max_corrupt <= 1, "in [0, 1]")
        _check("probe_images", probe_images, probe_images >= 1, "at least 1")
        self.views = views
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.probe_images = probe_images
        self.max_corrupt = max_corrupt
        self.pin_memory = pin_memory
        self.split = split
        self.mask_rules = masks
        self.subset = subset
        self.subset_seed = subset_seed
        self._source = index
        self._root = root
        self._columns = columns
        self._label_names = labels
        self._seed = seed
        self._index: pd.DataFrame | None = None
        self._failures: FailureLog | None = None
        self._resume: dict[str, int] = {}
        self._features: tuple[FeatureStore, NDArray[np.int64]] | None = None

    # What a data set overrides.

    def make_index(self) -> pd.DataFrame:
        """Return the index; every column outside `COLUMNS` is a label."""
        source = self._source or self._root
        if source is None:
            raise InputError(
                f"{type(self).__name__} has no images: give index, a file or pattern, or root, "
                "a folder"
            )
        return load_index(source, root=self._root, columns=self._columns, labels=self._label_names)

    def make_source(self, rows: pd.DataFrame) -> ImageSource:
        """Return the images of some rows of the index, in their order."""
        return ImageFiles(rows["path"])

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
        columns = {name: rows[MASK + name].tolist() for name in structures}
        folder = "" if self._source is None else index_folder(self._source, self._root)
        rules = self.mask_rules
        return MaskSource(
            columns, format=rules.format, frame=rules.frame, unknown=rules.unknown, root=folder
        )

    def sampling_weights(self, rows: pd.DataFrame) -> NDArray[np.float64] | None:
        """Return sampling weights (n,) of the training rows; None shows each once an epoch."""
        return None

    # What callbacks, tasks and analyses ask for.

    @property
    def index(self) -> pd.DataFrame:
        """The checked index with splits, read when first asked for."""
        if self._index is None:
            source = self._source or self._root
            folder = "" if source is None else index_folder(source, self._root)
            index = validate_index(self.make_index())
            self._index = assign_splits(index, self.split, self.seed, folder=folder)
        return self._index

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
        """Return the rows that the loaders of a split show: labelled ones for views with targets.

        Raises:
            InputError: If the index does not have the targets, or no image of the split does.
        """
        rows, targets = self.rows(split), self._targets()
        if split == "all" or not targets.wanted:
            return self._subset(rows, split)
        shown = rows[self._labelled(rows)]
        if len(rows) and shown.empty:
            wanted = [*targets.findings, *targets.structures, *["text"] * targets.text]
            raise InputError(
                f"no image of the split {split!r} has any of {', '.join(wanted)}: nothing can be "
                "learnt or measured there"
            )
        return self._subset(shown, split)

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
        source, view = self.make_source(self.shown_rows(split)), self._views().eval_view()
        return torch.stack([view(source[number])["image"] for number in numbers])

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Read the index."""
        # Lightning restores a checkpoint's position after this hook; one of an earlier run is void.
        self._resume = {}
        self._failures = FailureLog(len(self.index), self.max_corrupt)
        if self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0:
            raise InputError(
                "overfit_batches does not work with planned batches: give an index of few images"
            )

    def teardown(self, stage: str) -> None:
        """Warn once of all images that could not be read."""
        if self._failures is not None:
            self._failures.report()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take the failures out of the batch and note them.

        Raises:
            TooManyCorruptImagesError: Where more images are corrupt than max_corrupt allows.
        """
        if isinstance(batch, dict) and self._failures is not None:
            for number, message in batch.pop("failures", ()):
                self._failures.record(self.image_name(number, self._running_split()), message)
        return batch

    def train_dataloader(self) -> PlanLoader:
        """Return the shuffled views of the training images, from where a checkpoint left off."""
        rank, world_size = self._process()
        rows = self.shown_rows("train")
        dataset = self._dataset(rows, train=True)
        sampler = PlannedBatchSampler(
            len(rows), self.batch_size, self.seed, rank, world_size, self.sampling_weights(rows)
        )
        self._go_on(sampler)
        return self._loader(dataset, sampler, persistent=True)

    def val_dataloader(self) -> PlanLoader | list[PlanLoader]:
        """Return the views of all validation images, the same each time; none without images.

        With several processes the first images are repeated until all have equally many.
        """
        return self._fixed_views("val") if len(self.rows("val")) else []

    def test_dataloader(self) -> PlanLoader:
        """Return the views of all test images, the same each time."""
        if self.rows("test").empty:
            raise InputError("the index has no test images: give it a test split, or raise split")
        return self._fixed_views("test")

    def cache_features(
        self,
        encode: Callable[[Tensor], Sequence[Tensor]],
        shapes: Sequence[tuple[int, int]],
        description: Mapping[str, Any],
        *,
        device: torch.device,
        folder: str,
        dtype: FeatureDtype = "float16",
    ) -> None:
        """Encode all labelled images once, and show their features instead of them from now on.

        Args:
            encode: Images (B, C, H, W) on the device to tokens (B, T_i, D_i) after each level.
            shapes: (T_i, D_i) of each level.
            description: Plain data that says which encoder this is and what of it is read.
            device: Where ``encode`` wants the images.
            folder: Where stores are kept, each in a folder of its own.
            dtype: How numbers are kept.
        """
        encoding = Encoding(encode, shapes, description, device, folder, dtype)
        rows = self.index[self._labelled(self.index)]
        view = self._views().eval_view()
        dataset = EvalDataset(
            self.make_source(rows), view, np.zeros((len(rows), 0), dtype=np.float32)
        )
        sampler = FixedBatchSampler(np.arange(len(rows)), self.batch_size, *self._process())
        paths = rows["path"].tolist()
        batches = self._note_failures(self._loader(dataset, sampler), paths)
        store = encode_once(encoding, batches, paths, view, self._process()[0])
        place = np.full(len(self.index), -1)
        place[self.index.index.get_indexer(rows.index)] = np.arange(len(rows))
        self._features = store, place

    def _note_failures(
        self, batches: Iterable[dict[str, Any]], paths: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for batch in batches:
            for number, message in batch["failures"]:
                if self._failures is not None:
                    self._failures.record(paths[number], message)
            yield batch

    def label_dataloader(self, split: str, shard: tuple[int, int] = (0, 1)) -> PlanLoader:
        """Return the deterministic view and targets of each image a split shows, exactly once.

        Args:
            split: "train", "val" or "test".
            shard: (rank, world size) of a process that shares the images with others.
        """
        rows = self.shown_rows(split)
        dataset = self._dataset(rows, train=False)
        return self._loader(
            dataset, FixedBatchSampler(np.arange(len(rows)), self.batch_size, *shard)
        )

    def predict_dataloader(self) -> PlanLoader:
        """Return the deterministic view of every image of the index, each exactly once."""
        return self._fixed_view("all", np.arange(len(self.index)), self._process())

    def probe_dataloader(self, split: str, shard: tuple[int, int] = (0, 1)) -> PlanLoader:
        """Return the deterministic view of labelled images of a split, the same each time.

        At most `probe_images` are shown, chosen by a hash of (seed, path): the choice depends
        neither on the order of the index nor on other images. Callers that iterate the loader on
        their own find the images that could not be read under `failures`.

        Args:
            split: "train", "val" or "test".
            shard: (rank, world size) of a process that shares the images with others.

        Raises:
            InputError: Where the split has no labelled image.
        """
        rows = self.rows(split)
        labelled = np.flatnonzero(rows[self.labels].notna().any(axis=1))
        if not labelled.size:
            raise InputError(
                f"the split {split!r} has no labelled image to probe: add label columns to the "
                "index, or probe another split"
            )
        if labelled.size > self.probe_images:
            keys = stable_fractions(self.seed, "probe " + rows["path"].iloc[labelled])
            labelled = np.sort(labelled[np.argsort(keys)[: self.probe_images]])
        return self._fixed_view(split, labelled, shard)

    def state_dict(self) -> dict[str, int]:
        """Return the position: epoch, and images of it that all processes have trained on."""
        epoch, batches = (0, 0) if self.trainer is None else position(self.trainer)
        return {
            "epoch": epoch,
            "images": batches * self._global_batch,
            "global_batch": self._global_batch,
            "n_images": len(self.shown_rows("train")),
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keep the position for the next training loader."""
        self._resume = dict(state_dict)

    # Parts of the above.

    @property
    def _global_batch(self) -> int:
        return self.batch_size * self._process()[1]

    def _process(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _running_split(self) -> str:
        trainer = self.trainer
        if trainer is None or trainer.training:
            return "train"
        if trainer.predicting:
            return "all"
        return "test" if trainer.testing else "val"

    def _views(self) -> Views:
        if self.views is None:
            raise InputError(f"{type(self).__name__} needs views: pass objective.views")
        return self.views

    def _go_on(self, sampler: PlannedBatchSampler) -> None:
        """Move a new sampler to where training is."""
        state = self._resume
        if state:
            self._compare(state, sampler)
            sampler.start_at(state["epoch"], state["images"] // sampler.global_batch)
        if self.trainer is not None:
            close_epoch(self.trainer)
            # Workers fetch ahead before the trainer says which epoch it is in.
            sampler.set_epoch(max(sampler.epoch, position(self.trainer)[0]))

    def _compare(self, state: dict[str, int], sampler: PlannedBatchSampler) -> None:
        """Refuse or warn where the checkpoint's batches are not this run's."""
        if state["images"] and state["global_batch"] != sampler.global_batch:
            raise InputError(
                f"the checkpoint stopped within an epoch of global batches of "
                f"{state['global_batch']} images, this run makes {sampler.global_batch} "
                "(batch_size x processes): change batch_size to match, or resume from the end of "
                "an epoch"
            )
        now = {"seed": self.seed, "n_images": sampler.n_images}
        for name, value in now.items():
            if state[name] != value:
                warnings.warn(
                    f"the checkpoint was made with {name} {state[name]}, this run has {value}: "
                    "training goes on with another order of the images",
                    stacklevel=2,
                )

    def _targets(self) -> Targets:
        return Targets() if self.views is None else self.views.targets

    def _labelled(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Return which rows have any of the targets."""
        targets = self._targets()
        check_targets(self.index, targets, self.structures)
        known = labelled(rows, targets)
        if targets.structures:
            masked = [self.has_mask(rows, name) for name in targets.structures]
            known &= np.logical_or.reduce(masked)
        return known

    def _subset(self, rows: pd.DataFrame, split: str) -> pd.DataFrame:
        if self.subset is None or split != "train":
            return rows
        return rows.iloc[nested_subset(rows, self.subset, self.subset_seed)]

    def _dataset(
        self, rows: pd.DataFrame, *, train: bool
    ) -> ViewDataset | TaskDataset | FeatureDataset:
        """Return the data set of some shown rows, with targets where they are wanted."""
        views = self._views()
        targets = views.targets
        if not targets.wanted:
            return ViewDataset(self.make_source(rows), views, self.seed)
        masks = self.make_masks(rows, targets.structures) if targets.structures else None
        table = TargetTable(rows, targets, masks)
        if self._features is not None:
            store, place = self._features
            return FeatureDataset(store, place[self.index.index.get_indexer(rows.index)], table)
        view = views if train else views.eval_view()
        return TaskDataset(self.make_source(rows), table, view, self.seed, train=train)

    def _fixed_views(self, split: str) -> PlanLoader:
        rows = self.shown_rows(split)
        dataset = self._dataset(rows, train=False)
        images = np.arange(len(rows))
        sampler = FixedBatchSampler(images, self.batch_size, *self._process(), pad=True)
        return self._loader(dataset, sampler)

    def _fixed_view(
        self, split: str, images: NDArray[np.int64], process: tuple[int, int]
    ) -> PlanLoader:
        rows = self.rows(split)
        labels = rows[self.labels].to_numpy(dtype=np.float32)
        dataset = EvalDataset(self.make_source(rows), self._views().eval_view(), labels)
        return self._loader(dataset, FixedBatchSampler(images, self.batch_size, *process))

    def _loader(
        self,
        dataset: Dataset[dict[str, Any]],
        sampler: PlannedBatchSampler | FixedBatchSampler,
        *,
        persistent: bool = False,
    ) -> PlanLoader:
        return plan_loader(
            dataset,
            sampler,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent=persistent,
        )


def _check(name: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        raise InputError(f"{name} must be {wanted}, got {value}")

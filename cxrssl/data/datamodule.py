"""From an index to batches: the Lightning data module every data set shares."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cxrssl.data.caching import Encoding, encode_once
from cxrssl.data.dataset import EvalDataset, ViewDataset
from cxrssl.data.failures import FailureLog
from cxrssl.data.features import FeatureDataset, FeatureDtype, FeatureStore
from cxrssl.data.indexed import IndexedImages
from cxrssl.data.loader import PlanLoader, plan_loader
from cxrssl.data.polarity import Polarity
from cxrssl.data.resume import Recount, check_resumed, close_epoch, position
from cxrssl.data.sampler import FixedBatchSampler, PlannedBatchSampler
from cxrssl.data.splits import stable_fractions
from cxrssl.data.subsets import image_names
from cxrssl.data.targets import MaskRules, TargetTable
from cxrssl.data.task_dataset import TaskDataset
from cxrssl.errors import InputError
from cxrssl.views.base import Views

__all__ = ["CXRDataModule"]


class CXRDataModule(IndexedImages):
    """Images of an index as batches of an objective's views.

    Images are numbered from 0 within their split ("train", "val", "test"), in the order of the
    index; the split "all" is the whole index. Batches are the same for any number of workers, and
    the global batch is the same however many processes share it. Every checkpoint holds the
    position in the epoch, counted in images trained on, so that a resumed run goes on with the
    very next batch. The loaders shard themselves: both settings of the trainer's
    ``use_distributed_sampler`` give the same batches.

    Views with targets, as tasks have them, get labelled images, see `shown_rows`: each with its
    targets, and the deterministic view of them outside training; see `TaskDataset`.

    A data set subclasses this and overrides `make_index`, and where its images are not files
    `make_source` and `image_keys`; with masks, `structures`, `has_mask` and `make_masks` too.

    Args:
        index: Index to read: a CSV or Parquet file, a pattern, a folder of images, or a packed
            store (`cxrssl pack`), on disk or as in ``s3://bucket/store``.
        root: Folder that relative paths start from, or packed store; without an index, the folder
            of the images.
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
        polarity: ``stored`` takes images as their files say; ``check`` turns frontal images whose
            look says that their header is wrong, see `looks_inverted`, and warns of them once at
            the end. `cxrssl check` takes them as stored in either case; packing refuses ``check``.

    Raises:
        InputError: If an option is out of its range.
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
        subset: int | float | None = None,
        subset_seed: int = 0,
        polarity: Polarity = "stored",
    ) -> None:
        super().__init__(
            index,
            root,
            views=views,
            columns=columns,
            labels=labels,
            split=split,
            seed=seed,
            masks=masks,
            subset=subset,
            subset_seed=subset_seed,
            polarity=polarity,
        )
        _check("polarity", polarity, polarity in get_args(Polarity), "stored or check")
        _check("batch_size", batch_size, batch_size >= 1, "at least 1")
        _check("num_workers", num_workers, num_workers >= 0, "at least 0")
        _check("seed", seed, seed is None or seed >= 0, "at least 0")
        _check("max_corrupt", max_corrupt, 0 <= max_corrupt <= 1, "in [0, 1]")
        _check("probe_images", probe_images, probe_images >= 1, "at least 1")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.probe_images = probe_images
        self.max_corrupt = max_corrupt
        self.pin_memory = pin_memory
        self._failures: FailureLog | None = None
        self._resume: dict[str, int] = {}
        self._recount: Recount | None = None
        self._features: tuple[FeatureStore, NDArray[np.int64]] | None = None

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Read the index."""
        # Lightning restores a checkpoint's position after this hook, and a task caches features;
        # those of an earlier run are void.
        self._resume = {}
        self._recount = None
        self._features = None
        self._failures = FailureLog(len(self.index), self.max_corrupt)
        if self.trainer is not None and getattr(self.trainer, "overfit_batches", 0) > 0:
            raise InputError(
                "overfit_batches does not work with planned batches: give an index of few images"
            )

    def teardown(self, stage: str) -> None:
        """Warn once of all images that could not be read, and of those that were turned."""
        if self._failures is not None:
            self._failures.report()
        if self._inverted is not None:
            self._inverted.report(self.index["path"].tolist())

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take the failures out of the batch and note them.

        Raises:
            TooManyCorruptImagesError: Where more images are corrupt than max_corrupt allows.
        """
        if isinstance(batch, dict) and self._failures is not None:
            for number, message in batch.pop("failures", ()):
                self._note_failure(self.image_name(number, self._running_split()), message)
        return batch

    def train_dataloader(self) -> PlanLoader:
        """Return the shuffled views of the training images, from where a checkpoint left off."""
        rank, world_size = self._process()
        rows = self.shown_rows("train")
        dataset = self._dataset(rows, train=True)
        sampler = PlannedBatchSampler(
            len(rows),
            self.batch_size,
            self.seed,
            rank,
            world_size,
            self.sampling_weights(rows),
            self._accumulated,
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

        Raises:
            InputError: If no image is labelled, or the features cannot be written.
            TooManyCorruptImagesError: Where more images are corrupt than max_corrupt allows.
        """
        description = {**description, "polarity": self.polarity}
        encoding = Encoding(encode, shapes, description, device, folder, dtype)
        rows = self.index[self._labelled(self.index)]
        if rows.empty:
            raise InputError(f"no image of the index has {self._wanted()}: nothing can be encoded")
        paths, rank = rows["path"].tolist(), self._process()[0]
        view = self._views().eval_view()
        labels = np.zeros((len(rows), 0), dtype=np.float32)
        dataset = EvalDataset(self.shown_source(rows), view, labels)
        sampler = FixedBatchSampler(np.arange(len(rows)), self.batch_size, *self._process())
        batches = self._note_failures(self._loader(dataset, sampler), paths)
        store = encode_once(encoding, batches, self.image_keys(rows), view, rank)
        for number in np.flatnonzero(~store.readable).tolist():
            self._note_failure(paths[number], f"{paths[number]} had no features when it was cached")
        place = np.full(len(self.index), -1)
        place[self.index.index.get_indexer(rows.index)] = np.arange(len(rows))
        self._features = store, place

    def _note_failures(
        self, batches: Iterable[dict[str, Any]], paths: Sequence[str]
    ) -> Iterator[dict[str, Any]]:
        for batch in batches:
            for number, message in batch["failures"]:
                self._note_failure(paths[number], message)
            yield batch

    def _note_failure(self, path: str, message: str) -> None:
        if self._failures is not None:
            self._failures.record(path, message)

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
        """Return the deterministic view of labelled images a split shows, the same each time.

        At most `probe_images` are shown, chosen by a hash of (seed, path below the folder of the
        images): the choice depends neither on that folder, nor on the order of the index, nor on
        other images. Callers that iterate the loader on their own find the images that could not
        be read under `failures`.

        Args:
            split: "train", "val" or "test".
            shard: (rank, world size) of a process that shares the images with others.

        Raises:
            InputError: Where the split has no labelled image.
        """
        rows = self.shown_rows(split)
        labelled = np.flatnonzero(rows[self.labels].notna().any(axis=1))
        if not labelled.size:
            raise InputError(
                f"the split {split!r} has no labelled image to probe: add label columns to the "
                "index, or probe another split"
            )
        if labelled.size > self.probe_images:
            names = image_names(rows.iloc[labelled], self.image_folder)
            keys = stable_fractions(self.seed, "probe " + names)
            labelled = np.sort(labelled[np.argsort(keys)[: self.probe_images]])
        return self._fixed_view(split, labelled, shard)

    def state_dict(self) -> dict[str, int]:
        """Return the position: epoch, and images of its optimiser steps over all processes.

        Within a step its first micro-batches count as not shown: their gradients are not kept.
        """
        epoch, batches = (0, 0) if self.trainer is None else position(self.trainer)
        stepped = batches // self._accumulated * self._accumulated
        return {
            "epoch": epoch,
            "images": stepped * self._global_batch,
            "global_batch": self._global_batch,
            "accumulated": self._accumulated,
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

    @property
    def _accumulated(self) -> int:
        return 1 if self.trainer is None else self.trainer.accumulate_grad_batches

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

    def _go_on(self, sampler: PlannedBatchSampler) -> None:
        """Move a new sampler to where training is."""
        state = self._resume
        if state:
            check_resumed(state, sampler)
            sampler.start_at(state["epoch"], state["images"] // sampler.global_batch)
            if self.trainer is not None and self._recount is None:
                self._recount = Recount(state, sampler.global_batch)
                self._recount.attach(self.trainer)
        if self.trainer is not None:
            close_epoch(self.trainer)
            # Workers fetch ahead before the trainer says which epoch it is in.
            sampler.set_epoch(max(sampler.epoch, position(self.trainer)[0]))

    def _dataset(
        self, rows: pd.DataFrame, *, train: bool
    ) -> ViewDataset | TaskDataset | FeatureDataset:
        """Return the data set of some shown rows, with targets where they are wanted."""
        views = self._views()
        targets = views.targets
        if not targets.wanted:
            return ViewDataset(self.shown_source(rows), views, self.seed)
        masks = self.make_masks(rows, targets.structures) if targets.structures else None
        table = TargetTable(rows, targets, masks)
        if self._features is not None:
            store, place = self._features
            return FeatureDataset(store, place[self.index.index.get_indexer(rows.index)], table)
        view = views if train else views.eval_view()
        return TaskDataset(self.shown_source(rows), table, view, self.seed, train=train)

    def _fixed_views(self, split: str) -> PlanLoader:
        rows = self.shown_rows(split)
        dataset = self._dataset(rows, train=False)
        images = np.arange(len(rows))
        sampler = FixedBatchSampler(images, self.batch_size, *self._process(), pad=True)
        return self._loader(dataset, sampler)

    def _fixed_view(
        self, split: str, images: NDArray[np.int64], process: tuple[int, int]
    ) -> PlanLoader:
        rows = self.shown_rows(split)
        labels = rows[self.labels].to_numpy(dtype=np.float32)
        dataset = EvalDataset(self.shown_source(rows), self._views().eval_view(), labels)
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

"""From an index to batches: the Lightning data module every data set shares."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray

from cxrssl.data.dataset import EvalDataset, ViewDataset
from cxrssl.data.failures import FailureLog
from cxrssl.data.index import index_folder, load_index
from cxrssl.data.loader import PlanLoader, plan_loader
from cxrssl.data.resume import close_epoch, position
from cxrssl.data.sampler import FixedBatchSampler, PlannedBatchSampler
from cxrssl.data.sources import ImageFiles, ImageSource
from cxrssl.data.splits import assign_splits, stable_fractions
from cxrssl.data.validate import label_names, validate_index
from cxrssl.errors import InputError
from cxrssl.views.base import Views

__all__ = ["CXRDataModule"]


class CXRDataModule(LightningDataModule):
    """Images of an index as batches of an objective's views.

    Images are numbered from 0 within their split ("train", "val", "test"), in the order of the
    index; the split "all" is the whole index. Batches are the same for any number of workers, and
    the global batch is the same however many processes share it. Every checkpoint holds the
    position in the epoch, counted in images trained on, so that a resumed run goes on with the
    very next batch. The loaders shard themselves: both settings of the trainer's
    ``use_distributed_sampler`` give the same batches.

    A data set subclasses this and overrides `make_index`, and `make_source` where its images are
    not files.

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
        self._source = index
        self._root = root
        self._columns = columns
        self._label_names = labels
        self._seed = seed
        self._index: pd.DataFrame | None = None
        self._failures: FailureLog | None = None
        self._resume: dict[str, int] = {}

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

    def image_name(self, number: int, split: str = "train") -> str:
        """Return the file of an image, for messages."""
        return self.describe_images([number], split)[0]

    def describe_images(self, numbers: Sequence[int], split: str = "train") -> list[str]:
        """Return the files of several images, for messages."""
        return [str(path) for path in self.rows(split)["path"].iloc[list(numbers)]]

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
        rows = self.rows("train")
        dataset = ViewDataset(self.make_source(rows), self._views(), self.seed)
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
            "n_images": int((self.index["split"] == "train").sum()),
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

    def _fixed_views(self, split: str) -> PlanLoader:
        rows = self.rows(split)
        dataset = ViewDataset(self.make_source(rows), self._views(), self.seed)
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
        dataset: ViewDataset | EvalDataset,
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

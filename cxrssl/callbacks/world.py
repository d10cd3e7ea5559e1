"""What a world model knows, measured on the test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from cxrssl.analysis import (
    PredictsWorld,
    domain_sensitivity,
    layout_awareness,
    local_structure,
    plot_world,
    world_table,
)
from cxrssl.callbacks.messages import tell
from cxrssl.callbacks.undisturbed import undisturbed
from cxrssl.errors import InputError

__all__ = ["WorldReport"]

_OF_MODEL = ("predict", "targets")
_OF_VIEWS = ("crop_pair", "distort", "jitter", "masking")
_LOGGED = ("recall@1", "recall@3", "recall@5", "top-1", "top-5", "patch distance", "error")
_TOLD = ("true action", "offset", "masked")


class ImageData(Protocol):
    """A data module whose images can be read one by one."""

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of a split."""

    def make_source(self, rows: pd.DataFrame) -> Sequence[NDArray[np.uint8]]:
        """Return the images (H, W) uint8 of some rows."""


class WorldReport(Callback):
    """Measures in ``trainer.test`` what a world model knows, beyond its loss.

    Domain sensitivity, layout awareness and local structure (`cxrssl.analysis`) on some test
    images. ``world.csv``, with intervals and chance, and the figure ``world.png`` are written into
    the run's folder; the scores of the model that is told all it was trained to use are logged as
    ``test/world/<task>/<measure>``. Other modules are left alone. The first process measures; the
    result does not depend on how many there are.

    Args:
        images: Test images, evenly spaced over the split; those that cannot be read are left out.
        candidates: Versions of an image that domain sensitivity tells apart, at least 2.
        pairs: Pairs of crops of an image that layout awareness predicts from each other.
        seed: Seed of all draws.
        batch_size: Views in one pass of the model.

    Raises:
        InputError: If a number is too small.
    """

    def __init__(
        self,
        images: int = 32,
        candidates: int = 64,
        pairs: int = 4,
        seed: int = 0,
        *,
        batch_size: int = 64,
    ) -> None:
        for name, value, least in (
            ("images", images, 1),
            ("candidates", candidates, 2),
            ("pairs", pairs, 1),
            ("seed", seed, 0),
            ("batch_size", batch_size, 1),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        self.images = images
        self.candidates = candidates
        self.pairs = pairs
        self.seed = seed
        self.batch_size = batch_size

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, write and log."""
        model, data = _as_world(pl_module), _as_image_data(trainer)
        if model is None or data is None:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # takes all processes
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            try:
                values = self._report(trainer, pl_module, model, data, folder)
            except ValueError as error:
                rank_zero_warn(f"The world report is left out: {error}.")
        values = trainer.strategy.broadcast(values)
        if values:
            pl_module.log_dict(values, sync_dist=trainer.world_size > 1)

    def _report(
        self,
        trainer: Trainer,
        module: LightningModule,
        model: PredictsWorld,
        data: ImageData,
        folder: Path,
    ) -> dict[str, float]:
        """Write the table and the figure and return what is to be logged."""
        images = _read(data, self.images)
        with undisturbed(module), trainer.precision_plugin.forward_context():
            module.eval()
            domain = domain_sensitivity(
                model,
                images,
                candidates=self.candidates,
                seed=self.seed,
                batch_size=self.batch_size,
            )
            layout = layout_awareness(
                model, images, pairs=self.pairs, seed=self.seed, batch_size=self.batch_size
            )
            local = local_structure(model, images, seed=self.seed)
        table = world_table(domain, layout, local)
        folder.mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "world.csv", index=False)
        plot_world(domain, layout, local).savefig(folder / "world.png")
        tell(
            f"World model on {len(images)} test images, with 95 % intervals:\n{_readable(table)}\n"
            f"All of it: {folder / 'world.csv'}, {folder / 'world.png'}"
        )
        return _logged(table)


def _as_world(module: LightningModule) -> PredictsWorld | None:
    """Return the module as a world model, None if it is none."""
    views = getattr(module, "views", None)
    complete = all(hasattr(module, name) for name in _OF_MODEL) and all(
        hasattr(views, name) for name in _OF_VIEWS
    )
    return cast(PredictsWorld, module) if complete else None


def _as_image_data(trainer: Trainer) -> ImageData | None:
    """Return the trainer's data module if its images can be read one by one."""
    data: Any = getattr(trainer, "datamodule", None)
    complete = all(hasattr(data, name) for name in ("rows", "make_source"))
    return cast(ImageData, data) if complete else None


def _read(data: ImageData, count: int) -> list[NDArray[np.uint8]]:
    """Return evenly spaced test images, without those that cannot be read."""
    rows = data.rows("test")
    source = data.make_source(rows)
    images = []
    for number in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int).tolist():
        try:
            images.append(source[number])
        except InputError:
            # The loader of the test reports it.
            continue
    if not images:
        raise InputError(f"none of the {len(rows)} test images can be read")
    return images


def _readable(table: pd.DataFrame) -> str:
    """Return the rows that are not binned, numbers rounded."""
    rows = table[~table["measure"].str.contains(" at ")]
    return rows.to_string(index=False, float_format="{:.3f}".format)


def _logged(table: pd.DataFrame) -> dict[str, float]:
    """Return the main scores of the model that is told everything, by the name to log."""
    rows = table[table["condition"].isin(_TOLD) & table["measure"].isin(_LOGGED)]
    names = "test/world/" + rows["task"] + "/" + rows["measure"].str.replace(" ", "_")
    return dict(zip(names, rows["value"].astype(float), strict=True))

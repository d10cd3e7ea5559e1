"""What a world model knows, measured on the test images."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from cxrssl.analysis import PredictsWorld, plot_world
from cxrssl.analysis.world import (
    WorldMeasures,
    measure_world,
    world_headlines,
    world_scalars,
    world_table,
)
from cxrssl.analysis.world_model import as_world
from cxrssl.callbacks.messages import tell
from cxrssl.callbacks.undisturbed import undisturbed
from cxrssl.errors import InputError

__all__ = ["WorldReport"]

_LONG = 60.0


class ImageData(Protocol):
    """A data module whose images can be read one by one."""

    def rows(self, split: str) -> pd.DataFrame:
        """Return the rows of a split."""

    def shown_source(self, rows: pd.DataFrame) -> Sequence[NDArray[np.uint8]]:
        """Return the images (H, W) uint8 of some rows."""


class WorldReport(Callback):
    """Measures in ``trainer.test`` what a world model knows, beyond its loss.

    Domain sensitivity, layout awareness and local structure (`cxrssl.analysis`) on some test
    images. ``world.csv``, with intervals and chance, and the figure ``world.png`` are written into
    the run's folder. The scores of the model that is told all it was trained to use are logged as
    ``test/world/<task>/<measure>``; under the same name, ``.../gain`` is the difference to what it
    predicts from another image, or for domain to what it predicts when told another action, and
    ``.../gain_low`` and ``.../gain_high`` are its 95 % interval. The gain of an error or a distance
    is below 0 where the model knows something.

    Other modules are left alone, and trials by ``fast_dev_run`` too. The first process measures
    while the others wait; the result does not depend on how many there are. Whatever goes wrong is
    a warning and does not end the test.

    Args:
        images: Test images, evenly spaced over the split; those that cannot be read are left out.
            At least 2, and 5 for intervals; 0 switches the report off.
        candidates: Versions of an image that domain sensitivity tells apart, at least 2.
        pairs: Pairs of crops of an image that layout awareness predicts from each other.
        seed: Seed of all draws.
        batch_size: Views in one pass of the model.

    Raises:
        InputError: If a number is too small.
    """

    def __init__(
        self,
        images: int = 16,
        candidates: int = 64,
        pairs: int = 4,
        seed: int = 0,
        *,
        batch_size: int = 64,
    ) -> None:
        if images < 0 or images == 1:
            raise InputError(
                "images must be at least 2, or 0 for no report, since every image is compared with "
                f"another one, got {images}"
            )
        for name, value, least in (
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
        if self.images == 0 or getattr(trainer, "fast_dev_run", False):
            return
        model, data = as_world(pl_module), _as_image_data(trainer)
        if model is None or data is None:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # takes all processes
        values: dict[str, float] = {}
        if trainer.is_global_zero:
            # The other processes wait for the values: they must be sent whatever happens here.
            try:
                measured = self._measure(trainer, pl_module, model, data)
                values = _write(measured, folder)
                plot_world(*measured).savefig(folder / "world.png")
            except Exception as error:
                rank_zero_warn(f"The world report is not complete: {error!r}")
        values = trainer.strategy.broadcast(values)
        if values:
            pl_module.log_dict(values, sync_dist=trainer.world_size > 1)

    def _measure(
        self, trainer: Trainer, module: LightningModule, model: PredictsWorld, data: ImageData
    ) -> WorldMeasures:
        images = _read(data, self.images)
        tell(
            f"Measuring what the world model knows on {len(images)} test images, with "
            f"{self.candidates} versions and {self.pairs} pairs of crops of each"
        )
        with undisturbed(module), trainer.precision_plugin.forward_context():
            module.eval()
            return measure_world(
                model,
                images,
                candidates=self.candidates,
                pairs=self.pairs,
                seed=self.seed,
                batch_size=self.batch_size,
                after_image=_estimate_once(len(images)),
                without_domain=_warn_without_domain,
            )


def _write(measured: WorldMeasures, folder: Path) -> dict[str, float]:
    """Write and show the table; return what is to be logged."""
    table = world_table(*measured)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "world.csv", index=False)
    shown = world_headlines(table).to_string(index=False, float_format="{:.3f}".format)
    tell(
        f"World model on {measured.local.images} test images, with 95 % intervals:\n{shown}\n"
        f"All of it: {folder / 'world.csv'}, {folder / 'world.png'}"
    )
    return {f"test/world/{name}": value for name, value in world_scalars(table).items()}


def _warn_without_domain(reason: str) -> None:
    rank_zero_warn(f"The world report is without domain sensitivity: {reason}")


def _estimate_once(images: int) -> Callable[[int], None]:
    """Return what tells after the first image how long all will take, if that is long."""
    start = time.monotonic()

    def after_image(done: int) -> None:
        whole = (time.monotonic() - start) * images
        if done == 1 and whole > _LONG:
            tell(
                f"Domain sensitivity, the first and longest of three parts, takes about "
                f"{whole / 60:.0f} min; fewer images or candidates of WorldReport take less, "
                "images=0 leaves the report out"
            )

    return after_image


def _as_image_data(trainer: Trainer) -> ImageData | None:
    """Return the trainer's data module if its images can be read one by one."""
    data: Any = getattr(trainer, "datamodule", None)
    complete = all(hasattr(data, name) for name in ("rows", "shown_source"))
    return cast(ImageData, data) if complete else None


def _read(data: ImageData, count: int) -> list[NDArray[np.uint8]]:
    """Return evenly spaced test images, without those that cannot be read."""
    rows = data.rows("test")
    source = data.shown_source(rows)
    images = []
    for number in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int).tolist():
        try:
            images.append(source[number])
        except InputError:
            # The loader of the test reports it.
            continue
    if len(images) < 2:
        raise InputError(
            f"{len(images)} of the {len(rows)} test images can be read, but at least 2 are needed"
        )
    return images

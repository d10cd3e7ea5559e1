"""Figures at the end of every run."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis import plot_curves, plot_patch_pca
from cxrssl.callbacks.contracts import as_embeds, as_probe_data
from cxrssl.callbacks.history import History
from cxrssl.callbacks.messages import tell
from cxrssl.callbacks.scalars import log_interval
from cxrssl.callbacks.undisturbed import undisturbed
from cxrssl.errors import InputError
from cxrssl.objectives import Objective

__all__ = ["RunFigures"]


class RunFigures(Callback):
    """Draws the curves of a run, and what patch tokens see, into the run's folder.

    ``curves.png`` shows everything that was logged, resumed runs included. ``patches.png`` shows
    the first principal components of patch tokens over probe images. Both are also drawn when a
    run is interrupted or fails; then only the curves if several processes ran, since the others
    may be gone. A figure that cannot be drawn is a warning.

    Args:
        images: Images in ``patches.png``; 0 leaves it out.
        points: Most points of a curve.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(self, images: int = 6, *, points: int = 1000) -> None:
        if images < 0:
            raise InputError(f"images must not be negative, got {images}")
        self.images = images
        self.history = History(points)
        self._folder: Path | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn the run's folder, which takes all processes."""
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take up what was logged between epochs."""
        if batch_idx == 0:
            self._record(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take up what was logged, as often as the loggers do."""
        every = log_interval(trainer)
        if every and (batch_idx + 1) % every == 0:
            self._record(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw both figures."""
        self._record(trainer)
        self._draw(trainer, pl_module, patches=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Draw what there is."""
        self._draw(trainer, pl_module, patches=trainer.world_size == 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the curves as plain lists."""
        return self.history.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curves of the run before."""
        self.history.load_state_dict(state_dict)

    def _record(self, trainer: Trainer) -> None:
        metrics = trainer.callback_metrics
        if metrics and trainer.is_global_zero:
            values = {name: float(value) for name, value in metrics.items()}
            self.history.add(trainer.global_step, values)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, *, patches: bool) -> None:
        folder = self._folder
        if folder is None:
            return
        self._folder = None  # once a run
        figures: dict[str, Callable[[], Figure | None]] = {"curves.png": self._curves}
        if patches and self.images:
            figures["patches.png"] = lambda: self._patches(trainer, pl_module)
        drawn = [name for name, draw in figures.items() if _try(trainer, draw, folder / name)]
        if drawn:
            tell(f"Figures: {', '.join(str(folder / name) for name in drawn)}")

    def _curves(self) -> Figure | None:
        return plot_curves(self.history.curves) if any(self.history.curves.values()) else None

    def _patches(self, trainer: Trainer, pl_module: LightningModule) -> Figure | None:
        """Return the figure of patch tokens; the encoder runs on all processes."""
        objective = as_embeds(pl_module)
        if objective is None:
            return None
        with undisturbed(pl_module), trainer.precision_plugin.forward_context():
            images = self._sample(trainer)
            if images is None:
                return None
            pl_module.eval()
            # An objective's own method finds the weights of an encoder that is sharded.
            encode = pl_module.tokens if isinstance(pl_module, Objective) else objective.encoder
            tokens = encode(images.to(trainer.strategy.root_device))
        return plot_patch_pca(
            _grey(images, getattr(pl_module, "views", None)),
            tokens.patches.float().cpu().numpy(),
            tokens.grid,
        )

    def _sample(self, trainer: Trainer) -> Tensor | None:
        """Return the first probe images (n, C, H, W), of the first split that has some."""
        data = as_probe_data(trainer)
        if data is None:
            return None
        for split in ("val", "train"):
            try:
                return _first_images(data.probe_dataloader(split), self.images)
            except InputError:
                continue
        return None


def _first_images(batches: Iterable[Mapping[str, Any]], count: int) -> Tensor | None:
    parts: list[Tensor] = []
    for batch in batches:
        parts.append(batch["image"][: count - sum(map(len, parts))])
        if sum(map(len, parts)) == count:
            break
    return torch.cat(parts) if parts else None


def _grey(images: Tensor, views: Any) -> NDArray[np.float32]:
    """Return images (n, C, H, W) as grey levels (n, H, W) in [0, 1], normalisation undone."""
    mean, std = getattr(views, "mean", 0.0), getattr(views, "std", 1.0)
    grey: NDArray[np.float32] = (images[:, 0] * std + mean).clamp(0, 1).cpu().numpy()
    return grey


def _try(trainer: Trainer, draw: Callable[[], Figure | None], path: Path) -> bool:
    """Draw and write a figure; tell whether there is one."""
    try:
        figure = draw()
        if figure is None or not trainer.is_global_zero:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except Exception as error:
        rank_zero_warn(f"{path.name} could not be drawn: {error!r}")
        return False
    return True

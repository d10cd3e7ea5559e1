"""What the callbacks here ask of the module that is trained and of its data module."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

from lightning import LightningModule, Trainer
from torch import Tensor, nn

__all__ = ["Embeds", "ProbeData", "as_embeds", "as_probe_data"]


class Embeds(Protocol):
    """A module with an encoder that describes itself and turns images into features."""

    @property
    def encoder(self) -> nn.Module:
        """The encoder: images (B, C, H, W) to tokens with ``patches`` (B, N, D) and ``grid``."""

    def embed(self, images: Tensor, pooling: str = "class") -> Tensor:
        """Return features (B, D) of images (B, C, H, W)."""

    def describe(self) -> dict[str, Any]:
        """Return what a file with the encoder says about itself, as plain data."""


class ProbeData(Protocol):
    """A data module with labelled images to probe."""

    @property
    def labels(self) -> list[str]:
        """Names of the findings."""

    def probe_dataloader(
        self, split: str, shard: tuple[int, int] = (0, 1)
    ) -> Iterable[Mapping[str, Any]]:
        """Return batches of ``image``, ``labels`` (B, F) and ``image_number`` (B,)."""


def as_embeds(module: LightningModule) -> Embeds | None:
    """Return the module as one that embeds images, None if it does not."""
    wanted = ("encoder", "embed", "describe")
    return cast(Embeds, module) if all(hasattr(module, name) for name in wanted) else None


def as_probe_data(trainer: Trainer) -> ProbeData | None:
    """Return the trainer's data module if it has images to probe."""
    datamodule = getattr(trainer, "datamodule", None)
    # Only the methods are looked up: reading `labels` may read a whole index.
    return cast(ProbeData, datamodule) if hasattr(datamodule, "probe_dataloader") else None

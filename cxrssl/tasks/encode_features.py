"""Encoding the labelled images of a run once, by its frozen encoder."""

from collections.abc import Sequence
from typing import Any

from lightning import Trainer
from torch import Tensor

from cxrssl.backbones import Backbone
from cxrssl.errors import InputError
from cxrssl.tasks.caching import pack_levels, packed_shapes

__all__ = ["encode_features"]


def encode_features(
    trainer: Trainer,
    backbone: Backbone,
    levels: Sequence[int],
    *,
    patches: bool,
    image_size: int,
    encoder: str,
    folder: str,
    dtype: str,
) -> None:
    """Have a trainer's data module show features from now on, encoded once in its precision.

    Args:
        trainer: The trainer, whose data module encodes its images.
        backbone: The frozen encoder.
        levels: Numbers of the levels that are kept.
        patches: Whether all patches are; otherwise their mean is.
        image_size: Side of the views.
        encoder: Hash of the encoder.
        folder: Where features are kept.
        dtype: How numbers are kept.

    Raises:
        InputError: If there is no data module of ours.
    """
    datamodule: Any = getattr(trainer, "datamodule", None)
    if not hasattr(datamodule, "cache_features"):
        raise InputError("cache needs a data module of cxrssl, whose images it encodes")
    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    shapes = packed_shapes(backbone, levels, patches, image_size)
    backbone.to(device)

    def encode(images: Tensor) -> list[Tensor]:
        with precision.forward_context():
            return pack_levels(backbone.levels(precision.convert_input(images), levels), patches)

    datamodule.cache_features(
        encode,
        shapes,
        {
            "encoder": encoder,
            "levels": list(levels),
            "patches": patches,
            "precision": str(trainer.precision),
        },
        device=device,
        folder=folder,
        dtype=dtype,
    )

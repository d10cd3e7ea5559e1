"""Loading pretrained weights into a backbone, completely or not at all."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cxrssl.backbones.base import Backbone
from cxrssl.backbones.convnet import ConvNet
from cxrssl.backbones.convnet_weights import load_convnet_state
from cxrssl.backbones.load_report import LoadReport
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.vit_weights import Normalisation, load_state
from cxrssl.backbones.weight_files import read_weights
from cxrssl.errors import InputError

__all__ = ["LoadReport", "encoder_prefix", "load_backbone_weights", "load_state", "read_weights"]


def load_backbone_weights(
    backbone: Backbone,
    path: str | Path,
    *,
    prefix: str | None = None,
    allow_missing: Collection[str] = (),
    normalisation: tuple[Normalisation, Normalisation] | None = None,
    resize_patch: bool = False,
) -> LoadReport:
    """Load weights stored by timm, torchvision, Hugging Face, official code or cxrssl.

    The official code may be that of DINOv2, CheXWorld or I-JEPA for a ViT, and of MLVICX for a
    ResNet. Of a file with an encoder and its moving average (teacher, target encoder) the average
    is loaded.

    Every weight of the backbone comes from the file or the call fails and changes nothing. Gates
    alone keep their start where the file has none, and the report says so. Positions of another
    grid are resampled in the ViT's interpolation mode. RGB kernels are summed into one channel,
    which equals feeding the grey image three times. A mask token in the file is kept as
    ``backbone.pretrained_mask_token`` for the objective.

    Args:
        backbone: A ViT or a ConvNet, filled in place.
        path: ``.safetensors`` or a file of ``torch.save``, read without unpickling objects.
        prefix: What the names of the wanted encoder's weights start with, to choose another one of
            the file, e.g. ``encoder.`` for the context encoder of CheXWorld or I-JEPA.
        allow_missing: Names, as the report gives them, that may be missing, e.g. ``{"reg_token"}``
            to add registers.
        normalisation: ((mean, std) the weights were trained with, (mean, std) used here); the
            difference is folded into the patch kernel and its bias, exactly. For a ViT only: the
            zeros around the images of a ConvNet would become another grey.
        resize_patch: Whether a patch kernel of another size is resized, bicubic and without
            rescaling: with half the side, outputs are about a quarter as large (CheXWorld's
            fine-tuning on smaller patches). Refused otherwise. For a ViT only.

    Raises:
        InputError: If the file cannot be read, holds no backbone that is known, or does not fit.
    """
    state, description = read_weights(path)
    place = encoder_prefix(state, description) if prefix is None else prefix
    if isinstance(backbone, ViT):
        return load_state(
            backbone,
            state,
            str(path),
            prefix=place,
            allow_missing=allow_missing,
            normalisation=normalisation,
            resize_patch=resize_patch,
        )
    if not isinstance(backbone, ConvNet):
        raise InputError(
            f"weights can be loaded into a ViT or a ConvNet, not into a {type(backbone).__name__}"
        )
    if normalisation is not None or resize_patch:
        raise InputError(
            "a ConvNet takes neither normalisation, which zeros around the image make inexact, nor "
            "resize_patch: give the views the mean and std the weights were trained with"
        )
    return load_convnet_state(backbone, state, str(path), prefix=place, allow_missing=allow_missing)


def encoder_prefix(
    state: Mapping[str, Tensor], description: Mapping[str, Any] | None
) -> str | None:
    """Return what the encoder's weights start with in a checkpoint of ours, None elsewhere."""
    place = (description or {}).get("encoder", "")
    prefix = f"{place}."
    return prefix if place and any(key.startswith(prefix) for key in state) else None

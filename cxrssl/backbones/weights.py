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

__all__ = ["LoadReport", "load_backbone_weights", "load_encoder", "load_state", "read_weights"]

_CLASSES: dict[str, type[ViT] | type[ConvNet]] = {"ViT": ViT, "ConvNet": ConvNet}


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
    place = _place(state, description) if prefix is None else prefix
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


def load_encoder(path: str | Path, *, drop_gates: bool = False) -> ViT | ConvNet:
    """Return the encoder of one of our checkpoints or of an ``encoder.safetensors``.

    Args:
        path: The file.
        drop_gates: Whether in-line gates are taken out, see :meth:`Backbone.drop_gates`.

    Raises:
        InputError: If the file cannot be read or does not describe itself.
    """
    state, description = read_weights(path)
    if description is None:
        raise InputError(
            f"{path} does not say which encoder it holds; build a ViT or ConvNet of the right size "
            "and call load_backbone_weights(backbone, path)"
        )
    backbone = _described(description, path)
    place = _place(state, description)
    if isinstance(backbone, ViT):
        report = load_state(backbone, state, str(path), prefix=place)
    else:
        report = load_convnet_state(backbone, state, str(path), prefix=place)
    if report.missing:
        raise InputError(f"{path} lacks gates that it describes: {report}")
    if "normalisation" in description:
        normalisation = description["normalisation"]
        backbone.normalisation = (normalisation["mean"], normalisation["std"])
    if drop_gates:
        backbone.drop_gates()
    return backbone.eval()


def _described(description: dict[str, Any], path: str | Path) -> ViT | ConvNet:
    """Return a backbone as a file describes it, without its weights."""
    try:
        name, arguments = (description["backbone"][key] for key in ("class", "arguments"))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"what {path} says of itself is not what cxrssl writes: it names no backbone with its "
            "class and arguments"
        ) from error
    if name not in _CLASSES:
        raise InputError(
            f"{path} holds a {name}, which is no backbone of cxrssl ({', '.join(_CLASSES)}): build "
            "it and load its weights yourself, with read_weights(path)"
        )
    try:
        return _CLASSES[name](**arguments)
    except TypeError as error:
        raise InputError(
            f"{path} describes a {name} that this version of cxrssl cannot build ({error}); it was "
            f"written by version {description.get('version', 'unknown')}"
        ) from error


def _place(state: Mapping[str, Tensor], description: dict[str, Any] | None) -> str | None:
    """Return what the encoder's weights start with in a checkpoint of ours, None elsewhere."""
    place = (description or {}).get("encoder", "")
    prefix = f"{place}."
    return prefix if place and any(key.startswith(prefix) for key in state) else None

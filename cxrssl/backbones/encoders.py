"""Encoders of every known format, built as their files say."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from cxrssl.backbones.convnet import ConvNet
from cxrssl.backbones.convnet_shape import convnet_shape
from cxrssl.backbones.convnet_weights import load_convnet_state
from cxrssl.backbones.encoder_configs import Stated, one_if_equal, stated_by
from cxrssl.backbones.encoder_files import EncoderFiles, files_of_timm, find_encoder
from cxrssl.backbones.load_report import LoadReport
from cxrssl.backbones.positions import Interpolation
from cxrssl.backbones.published import Published, heads_of_width, published_convnet, recognise
from cxrssl.backbones.vit import ViT
from cxrssl.backbones.vit_model import timm_reference
from cxrssl.backbones.vit_shape import vit_shape
from cxrssl.backbones.vit_weights import Normalisation, load_state
from cxrssl.backbones.weight_formats import to_timm_names
from cxrssl.backbones.weights import encoder_prefix
from cxrssl.errors import InputError

__all__ = ["build_encoder", "encoder_from_timm", "load_encoder"]

_CLASSES: dict[str, type[ViT] | type[ConvNet]] = {"ViT": ViT, "ConvNet": ConvNet}


def load_encoder(
    path_or_name: str | Path,
    *,
    drop_gates: bool = False,
    heads: int | None = None,
    img_size: int | None = None,
    in_chans: int | None = None,
    interpolation: Interpolation | None = None,
) -> ViT | ConvNet:
    """Return a pretrained encoder, built as its file says, in evaluation mode.

    Known are our checkpoints and ``encoder.safetensors``; folders and files of timm and of Hugging
    Face's ``Dinov2Model`` and ``Dinov2WithRegistersModel`` (RAD-DINO); official releases and
    training dumps of DINOv2 (CheXFound); CheXWorld, I-JEPA and MLVICX. Each is recognised by its
    keys, sizes are read off the tensors and the configuration beside them, and what neither says
    (normalisation, interpolation of positions, what stands for an image) is that of the published
    models. ``load_report`` says what became of each weight, and what was not in the file. Every
    weight is loaded or the call fails.

    Heads cannot be seen in weights. Without a configuration they are those of published models of
    the width: 64 wide each, but 16 heads at widths of 1280, 1408 and 1664.

    Args:
        path_or_name: A file, a folder, ``timm:NAME`` or ``hf:ORGANISATION/NAME[@REVISION]``, of
            which the last two are fetched, or found in the caches of timm and Hugging Face.
        drop_gates: Whether in-line gates are taken out, see :meth:`Backbone.drop_gates`.
        heads: Number of attention heads instead of the file's or the assumed one.
        img_size: Side in pixels for which positions are resampled and which images then have.
        in_chans: Channels of the images. With 1, kernels of RGB are summed, and a normalisation of
            each colour is folded into the kernel of a ViT, exactly for grey images.
        interpolation: How positions are resampled at other sizes instead of the file's way.

    Raises:
        InputError: If nothing can be read there, the format or the architecture is not known,
            weights are missing or left, or they do not fit.
    """
    options = {
        "heads": heads,
        "img_size": img_size,
        "in_chans": in_chans,
        "interpolation": interpolation,
    }
    given = {name: value for name, value in options.items() if value is not None}
    encoder = build_encoder(find_encoder(path_or_name), given)
    if drop_gates:
        encoder.drop_gates()
    return encoder.eval()


def encoder_from_timm(model: nn.Module) -> ViT | ConvNet:
    """Return the encoder of a model that timm made, with its weights copied.

    Args:
        model: What ``timm.create_model`` returned.

    Raises:
        InputError: If it is no ViT or ConvNet that can be built here.
    """
    return build_encoder(files_of_timm(model)).eval()


def build_encoder(files: EncoderFiles, given: Mapping[str, Any] | None = None) -> ViT | ConvNet:
    """Return the encoder of files that are already read; see :func:`load_encoder`.

    Args:
        files: What :func:`find_encoder` returned.
        given: Arguments of the backbone that go before those of the files.
    """
    given = given or {}
    if files.description is not None:
        return _described(files, files.description, given)
    if any("decoder.layers.0.multihead_attn." in key for key in files.state):
        raise InputError(
            f"{files.source} holds heads of GLoRI and no encoder: load them into a head with "
            "cxrssl.heads.load_glori_weights"
        )
    stated = stated_by(files)
    found = convnet_shape(files.state)
    if found is not None:
        return _convnet(files, stated, *found, given)
    if stated.name is not None and not any("patch_embed." in key for key in files.state):
        return _convnet(files, stated, "timm or torchvision", {"name": stated.name}, given)
    return _vit(files, stated, given)


def _described(
    files: EncoderFiles, description: Mapping[str, Any], given: Mapping[str, Any]
) -> ViT | ConvNet:
    """Return the encoder of a file that describes itself."""
    name, arguments = _stated(description, files.source)
    encoder: ViT | ConvNet = _made(_CLASSES[name], {**arguments, **given}, files)
    pair = description.get("normalisation")
    trained = None if pair is None else (one_if_equal(pair["mean"]), one_if_equal(pair["std"]))
    folded = _folded(trained, arguments.get("in_chans", 1), encoder.in_chans)
    encoder.load_report = _load(encoder, files, trained, folded)
    if encoder.load_report.missing:
        raise InputError(f"{files.source} lacks gates that it describes: {encoder.load_report}")
    encoder.normalisation = folded or trained
    encoder.trained_pooling = description.get("pooling")
    view = description.get("view")
    if view is not None and "img_size" not in given:
        encoder.image_size = view["image_size"]
        encoder.resize, encoder.resampling = view["resize"], view["resampling"]
    return encoder


def _convnet(
    files: EncoderFiles,
    stated: Stated,
    layout: str,
    arguments: Mapping[str, Any],
    given: Mapping[str, Any],
) -> ConvNet:
    published = published_convnet(layout, arguments["name"])
    unknown = set(given) - {"img_size", "in_chans"}
    if unknown:
        raise InputError(f"{sorted(unknown)[0]} is for a ViT, and {files.source} is a ConvNet")
    size = {"img_size": stated.image_size} if stated.image_size else {}
    options = {"in_chans": 3, **size, **arguments}
    encoder: ConvNet = _made(ConvNet, {**options, **given}, files)
    trained = stated.normalisation or published.normalisation
    folded = _folded(trained, options["in_chans"], encoder.in_chans)
    encoder.load_report = _load(encoder, files, trained, folded)
    _note(encoder, stated, published, given)
    return encoder


def _vit(files: EncoderFiles, stated: Stated, given: Mapping[str, Any]) -> ViT:
    layout, state = to_timm_names(files.state, files.source)
    published = recognise(layout, files.state, files.source)
    shape = vit_shape(state, files.source)
    _check_stated(shape, stated, files.source)
    if stated.name is not None:
        shape |= _with_name(shape, stated)
        published = replace(published, interpolation="size")
    elif layout == "Hugging Face":
        shape["norm_eps"] = stated.norm_eps
    if "norm.weight" not in state and "fc_norm.weight" in state:
        raise InputError(
            f"{files.source} pools its patches before the last norm, which tokens cannot be given "
            "back: it is not built here"
        )
    heads, assumed = _heads(shape, stated, given, files.source)
    shape |= {"heads": heads, "interpolation": published.interpolation}
    encoder: ViT = _made(ViT, {**shape, **given}, files)
    trained = stated.normalisation or published.normalisation
    folded = _folded(trained, shape["in_chans"], encoder.in_chans)
    encoder.load_report = _load(encoder, files, trained, folded)
    encoder.load_report.assumed += assumed
    _note(encoder, stated, published, given)
    encoder.normalisation = folded or encoder.normalisation
    return encoder


def _load(
    encoder: ViT | ConvNet,
    files: EncoderFiles,
    trained: Normalisation | None,
    folded: Normalisation | None,
) -> LoadReport:
    """Load weights, and fold what they were normalised with into what images are here."""
    place = encoder_prefix(files.state, files.description)
    if isinstance(encoder, ViT):
        pair = None if trained is None or folded is None else (trained, folded)
        return load_state(encoder, files.state, files.source, prefix=place, normalisation=pair)
    if folded is not None:
        raise InputError(
            f"{files.source} was trained on images whose colours are normalised differently, which "
            "cannot be had with one channel in a ConvNet: leave in_chans out"
        )
    return load_convnet_state(encoder, files.state, files.source, prefix=place)


def _heads(
    shape: Mapping[str, Any], stated: Stated, given: Mapping[str, Any], source: str
) -> tuple[int, list[str]]:
    """Return the number of heads, and what is assumed of it."""
    known = given.get("heads", shape.get("heads") or stated.heads)
    if known is not None:
        return int(known), []
    heads = heads_of_width(shape["width"])
    if heads is None:
        raise InputError(
            f"{source} does not say how many attention heads its blocks of width {shape['width']} "
            "have: call load_encoder with heads"
        )
    return heads, [f"{heads} heads"]


def _with_name(shape: Mapping[str, Any], stated: Stated) -> dict[str, Any]:
    """Return what changes in arguments where timm's architecture is known."""
    named = timm_reference(str(stated.name))
    block = named.blocks[0]
    changed: dict[str, Any] = {"name": stated.name}
    if block.mlp.fc2.in_features * shape["width"] == shape["ffn_width"] * named.embed_dim:
        changed |= {"ffn": None, "ffn_width": None}  # with its own activation
    elif not isinstance(block.mlp.act, nn.GELU | nn.SiLU):
        raise InputError(
            f"{stated.name} has an activation of its own ({type(block.mlp.act).__name__}), with "
            "which feed-forward layers of another width are not built here"
        )
    if shape["layer_scale"] is None and hasattr(block.ls1, "gamma"):
        changed["layer_scale"] = 0.0
    if stated.heads is None and named.embed_dim == shape["width"]:
        changed["heads"] = block.attn.num_heads
    return changed


def _check_stated(shape: Mapping[str, Any], stated: Stated, source: str) -> None:
    """Refuse weights of another size than the configuration beside them says."""
    for name in ("width", "depth"):
        said = getattr(stated, name)
        if said is not None and said != shape[name]:
            raise InputError(
                f"{source}: config.json says {name} {said}, and the weights have {shape[name]}: "
                "one of the files is cut off or belongs to another model"
            )


def _folded(trained: Normalisation | None, there: int, here: int) -> Normalisation | None:
    """Return one normalisation for one channel where weights for several had one for each."""
    if trained is None or here == there or not isinstance(trained[0], tuple):
        return None
    return _fitting(trained, here)


def _note(
    encoder: ViT | ConvNet, stated: Stated, published: Published, given: Mapping[str, Any]
) -> None:
    """Give an encoder what goes with its weights."""
    known = stated.normalisation or published.normalisation
    encoder.normalisation = None if known is None else _fitting(known, encoder.in_chans)
    encoder.trained_pooling = _pooling(encoder, stated, published)
    encoder.resampling = "pillow"
    if stated.image_size is not None and "img_size" not in given:
        encoder.image_size = stated.image_size
        encoder.resize = stated.resize if stated.resize != stated.image_size else None
    report = encoder.load_report
    if report is None:
        return
    if stated.normalisation is None:
        origin = "is not known" if published.normalisation is None else f"as of {published.name}"
        report.assumed.append(f"normalisation {origin}")
    report.assumed += stated.doubts


def _fitting(trained: Normalisation, channels: int) -> Normalisation:
    """Return a normalisation for a number of channels, with the means of other ones, as in timm."""
    mean, std = (
        sum(value) / len(value) if isinstance(value, tuple) and len(value) != channels else value
        for value in trained
    )
    return mean, std


def _pooling(encoder: ViT | ConvNet, stated: Stated, published: Published) -> Any:
    return (stated.pooling or published.pooling) if encoder.has_class_token else "mean"


def _stated(description: Mapping[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """Return class and arguments of the backbone that a file describes."""
    try:
        name, arguments = (description["backbone"][key] for key in ("class", "arguments"))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"what {source} says of itself is not what cxrssl writes: it names no backbone with "
            "its class and arguments"
        ) from error
    if name not in _CLASSES:
        raise InputError(
            f"{source} holds a {name}, which is no backbone of cxrssl ({', '.join(_CLASSES)}): "
            "build it and load its weights yourself, with read_weights(path)"
        )
    return name, arguments


def _made(
    kind: type[ViT] | type[ConvNet], arguments: Mapping[str, Any], files: EncoderFiles
) -> Any:
    try:
        return kind(**arguments)
    except TypeError as error:
        written = (files.description or {}).get("version")
        raise InputError(
            f"{files.source} describes an encoder that this version of cxrssl cannot build: {error}"
            + (f"; it was written by version {written}" if written else "")
        ) from error

"""Writing an encoder for other libraries."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import safetensors.torch

import cxrssl
from cxrssl.backbones import Backbone
from cxrssl.errors import InputError
from cxrssl.exporting.card import Card, card_text
from cxrssl.exporting.hugging_face_layout import hugging_face_layout
from cxrssl.exporting.layout import Layout, on_cpu
from cxrssl.exporting.provenance import Provenance
from cxrssl.exporting.timm_layout import timm_layout

__all__ = ["Format", "export_encoder"]

Format = Literal["timm", "huggingface", "cxrssl"]

_USAGE = """\
from cxrssl.backbones import load_encoder
encoder = load_encoder("{out}")"""


def export_encoder(
    encoder: Backbone,
    out: str | Path,
    format: Format = "timm",  # noqa: A002
    card: Card | None = None,
    provenance: Provenance | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write an encoder into a folder of its own, with a model card, and return the folder.

    ``timm`` and ``huggingface`` are read by these libraries alone, with no cxrssl installed. All
    are read by :func:`cxrssl.backbones.load_encoder`, which then gives the same weights, bit by
    bit, and what goes with them: the file also describes itself.

    Args:
        encoder: What is written.
        out: A folder that is new or empty. It appears whole or not at all.
        format: Whose layout it gets.
        card: What the authors say of it.
        provenance: What is known of its training.
        overwrite: Whether an earlier export in the folder is replaced.

    Raises:
        InputError: If the layout cannot say what the encoder is, or the folder holds something
            else or cannot be written.
    """
    layouts: dict[str, Callable[[Backbone], Layout]] = {
        "timm": timm_layout,
        "huggingface": hugging_face_layout,
        "cxrssl": _own_layout,
    }
    if format not in layouts:
        raise InputError(f"format must be {', '.join(layouts)}, got {format!r}")
    layout = layouts[format](encoder)
    out = Path(out)
    _check_free(out, overwrite)
    text = card_text(card or Card(), encoder, layout, provenance or Provenance(), out.name)
    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        metadata = {"format": "pt", "cxrssl": json.dumps(_describe(encoder), sort_keys=True)}
        safetensors.torch.save_file(
            on_cpu(layout.state), part / layout.weights_name, metadata=metadata
        )
        for name, content in layout.files.items():
            (part / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (part / "README.md").write_text(text, encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}): give another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _own_layout(encoder: Backbone) -> Layout:
    resampling = getattr(encoder, "interpolation", "size")
    return Layout("encoder.safetensors", encoder.state_dict(), "cxrssl", _USAGE, resampling)


def _describe(encoder: Backbone) -> dict[str, Any]:
    """Return what the file says of itself, as those of a run do."""
    mean, std = encoder.normalisation or (None, None)
    normalisation = {} if mean is None else {"normalisation": {"mean": mean, "std": std}}
    return {
        "version": cxrssl.__version__,
        "encoder": "",
        "backbone": {"class": type(encoder).__name__, "arguments": encoder.arguments},
        "image_size": encoder.image_size,
        "view": {
            "image_size": encoder.image_size,
            "resize": encoder.resize,
            "resampling": encoder.resampling,
        },
        "pooling": encoder.trained_pooling,
        **normalisation,
    }


def _check_free(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not names:
        return
    if not overwrite:
        raise InputError(f"{out} is not empty: give a new folder, or --overwrite")
    ours = {"README.md", "config.json", "preprocessor_config.json"}
    if names - ours - {"model.safetensors", "encoder.safetensors"}:
        raise InputError(f"{out} holds other files than those of an export: give a new folder")

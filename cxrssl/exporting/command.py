"""``cxrssl export``: an encoder in, a folder for another library out."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from jsonargparse import ActionYesNo, ArgumentParser

from cxrssl.arguments import command_parser
from cxrssl.backbones.encoder_files import find_encoder
from cxrssl.backbones.encoders import build_encoder
from cxrssl.exit_codes import exit_code
from cxrssl.exporting.card import Card
from cxrssl.exporting.export import Format, export_encoder
from cxrssl.exporting.provenance import read_provenance

__all__ = ["run"]

_USAGE = "cxrssl export --encoder ENCODER [--format timm|huggingface|cxrssl] OUT [--card.KEY VALUE]"
_DESCRIPTION = """\
Write an encoder for other libraries: safetensors, configuration and a model card in the folder OUT.
timm and transformers load it with no cxrssl installed. Data, recipe and scores of the card come
from the run's files beside the checkpoint, and never name paths or patients."""


def run(arguments: Sequence[str]) -> int:
    """Export as the arguments say, and return the command's exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    config = parser.parse_args(list(arguments))
    card: Card = parser.instantiate(config).card
    files = find_encoder(config.encoder)
    encoder = build_encoder(files).eval()
    if config.drop_gates:
        encoder.drop_gates()
    provenance = read_provenance(Path(config.encoder), files.description)
    out = export_encoder(
        encoder, config.out, config.format, card, provenance, overwrite=config.overwrite
    )
    names = ", ".join(sorted(path.name for path in out.iterdir()))
    sys.stdout.write(f"Read {encoder.load_report}\n{out}: {names}\n")


def _parser() -> ArgumentParser:
    parser = command_parser("export", _DESCRIPTION, _USAGE)
    parser.add_argument("out", type=str, help="Folder to write, new or empty.")
    parser.add_argument(
        "--encoder",
        type=str,
        required=True,
        help="Checkpoint, or file or folder of any known format, timm:NAME or "
        "hf:ORGANISATION/NAME.",
    )
    parser.add_argument(
        "--format",
        type=Format,
        default="timm",
        help=f"Whose layout: {', '.join(get_args(Format))}.",
    )
    for name, text in (
        ("drop_gates", "Take in-line gates out, which no other library has."),
        ("overwrite", "Replace an earlier export in the folder."),
    ):
        parser.add_argument(
            f"--{name}", action=ActionYesNo(no_prefix="no_"), default=False, help=text
        )
    parser.add_class_arguments(Card, "card")
    return parser

"""``cxrssl report``: encoders and an index in, one HTML file out."""

import logging
import os
import sys
from argparse import SUPPRESS
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.arguments import appending, command_parser, named_file, place_index
from cxrssl.data import CXRDataModule
from cxrssl.errors import InputError
from cxrssl.evaluation import EvaluationOptions
from cxrssl.exit_codes import exit_code
from cxrssl.reporting.options import ReportOptions
from cxrssl.reporting.page import need_template_engine
from cxrssl.reporting.report import Described, report_card
from cxrssl.tasks.encoder import read_encoder

__all__ = ["run"]

_DESCRIPTION = """\
One self-contained HTML file on an encoder, or on two side by side: scores on the labelled images
of an index with intervals, subgroups, leak level, health, and pictures of what it sees. INDEX is a
CSV, Parquet file, pattern or folder, short for --data.index."""
_REPEATED = ("--encoder", "--head", "--decoder", "--pretrained_on")


def run(arguments: Sequence[str]) -> int:
    """Write a report card as the arguments say, and return the command's exit code."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    config = parser.parse_args(appending(arguments, *_REPEATED))
    need_template_engine()
    _place_output(config)
    place_index(config)
    out = Path(config.out)
    if not out.parent.is_dir():
        raise InputError(f"there is no folder {out.parent} to write {out.name} into")
    made = parser.instantiate(config)
    encoders = _encoders(made)
    evaluation, options = (
        {field.name: made[field.name] for field in fields(kind)}
        for kind in (EvaluationOptions, ReportOptions)
    )
    page = report_card(
        encoders, made.data, EvaluationOptions(**evaluation), ReportOptions(**options)
    )
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    sys.stdout.write(f"{out}: {len(page.encode()) / 1e6:.1f} MB\n")


def _parser() -> ArgumentParser:
    parser = command_parser("report", _DESCRIPTION)
    # None would take the place of a config's.
    parser.add_argument("index", nargs="?", type=str, default=SUPPRESS, help="Labelled images.")
    parser.add_argument("out", nargs="?", type=str, default=SUPPRESS, help="HTML file to write.")
    parser.add_argument(
        "--encoder",
        metavar="[NAME=]ENCODER",
        type=list[str],
        default=[],
        help="File or folder of any known format, timm:NAME or hf:ORGANISATION/NAME; a second one "
        "is compared with the first. Of one in the folder of its run, settings, curves and "
        "predictor are shown too.",
    )
    for flag, what in (
        ("--head", "classification with a GLoRI head"),
        ("--decoder", "segmentation"),
    ):
        parser.add_argument(
            flag,
            metavar="[NAME=]FILE",
            type=list[str],
            default=[],
            help=f"Checkpoint of a {what} on the encoder of that name, in the folder of its run.",
        )
    parser.add_subclass_arguments(CXRDataModule, "data", skip={"views"}, required=False)
    parser.set_defaults({"data": {"class_path": "CXRDataModule"}})
    parser.add_class_arguments(ReportOptions, None, skip={"no_images"})
    parser.add_argument(
        "--no_images", action="store_true", help="Leave out every picture that shows an image."
    )
    parser.add_class_arguments(EvaluationOptions, None)
    return parser


def _place_output(config: Namespace) -> None:
    """Take the only word on the command line for the output where the data needs no index."""
    if config.get("out") is None:
        if config.get("index") is None:
            raise InputError(
                "there is no file to write: cxrssl report --encoder FILE INDEX OUT.html"
            )
        config.out, config.index = config.index, None
    if Path(config.out).suffix not in (".html", ".htm"):
        raise InputError(f"the report card is an HTML file, but {config.out} ends otherwise")


def _encoders(made: Namespace) -> dict[str, Described]:
    """Return the encoders by name, with what stands on them.

    Raises:
        InputError: If there is none, names are missing or unknown, or one cannot be read.
    """
    given = [named_file(text) for text in made.encoder]
    names = [name or Path(file).stem for name, file in given]
    if not names:
        raise InputError("there is no encoder to report on: give --encoder FILE")
    if len(set(names)) < len(names):
        raise InputError(f"encoders need names of their own (--encoder NAME=FILE), got {names}")
    heads, decoders = (_by_encoder(flag, made[flag], names) for flag in ("head", "decoder"))
    return {
        name: Described(read_encoder(file), file, heads.get(name), decoders.get(name))
        for name, (_, file) in zip(names, given, strict=True)
    }


def _by_encoder(flag: str, texts: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Return the files of a flag by the encoder they belong to; without a name, the first."""
    found: dict[str, str] = {}
    for text in texts:
        name, file = named_file(text)
        owner = names[0] if name is None else name
        if owner not in names or owner in found:
            raise InputError(
                f"--{flag} {text!r} belongs to no encoder of its own: give NAME=FILE, once for "
                f"each of {', '.join(names)}"
            )
        found[owner] = file
    return found

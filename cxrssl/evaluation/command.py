"""``cxrssl evaluate``: encoders and an index in, a table, files and figures out."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.arguments import add_index, appending, command_parser, named_file, place_index
from cxrssl.backbones import Backbone
from cxrssl.data import CXRDataModule
from cxrssl.errors import InputError
from cxrssl.evaluation.options import EvaluationOptions
from cxrssl.evaluation.run import evaluate
from cxrssl.evaluation.table import score_table
from cxrssl.exit_codes import exit_code
from cxrssl.tasks.encoder import read_encoder

__all__ = ["run"]

_DESCRIPTION = """\
What frozen encoders are worth on the labelled images of an index: AUROC, AUPRC, calibration and
sensitivity of every finding with intervals, by subgroup and with few labels, and how encoders
differ."""


def run(arguments: Sequence[str]) -> int:
    """Evaluate as the arguments say, and return the command's exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    config = parser.parse_args(appending(arguments, "--encoder", "--pretrained_on"))
    place_index(config)
    made = parser.instantiate(config)
    encoders = _encoders(made)
    names = [field.name for field in fields(EvaluationOptions)]
    options = EvaluationOptions(**{name: made[name] for name in names})
    results = evaluate(encoders, made.data, options)
    results.write(made.out)
    sys.stdout.write(f"{score_table(results)}\nTables and figures: {made.out}\n")


def _parser() -> ArgumentParser:
    parser = command_parser("evaluate", _DESCRIPTION)
    add_index(parser)
    parser.add_argument(
        "--encoder",
        metavar="[NAME=]ENCODER",
        type=list[str],
        default=[],
        help="File or folder of any known format, timm:NAME or hf:ORGANISATION/NAME; may be "
        "repeated.",
    )
    parser.add_subclass_arguments(
        Backbone,
        "backbone",
        required=False,
        help="Encoder that is built here instead, with weights of its own.",
    )
    parser.add_argument("--out", type=str, required=True, help="Folder for tables and figures.")
    parser.add_argument(
        "--mean",
        type=float | None,
        default=None,
        help="Mean of grey values in [0, 1] that images are normalised with, with --std, for all "
        "encoders; each file's own by default.",
    )
    parser.add_argument("--std", type=float | None, default=None, help="See --mean.")
    parser.add_subclass_arguments(CXRDataModule, "data", skip={"views"}, required=False)
    parser.set_defaults({"data": {"class_path": "CXRDataModule"}})
    parser.add_class_arguments(EvaluationOptions, None)
    return parser


def _encoders(made: Namespace) -> dict[str, Backbone]:
    """Return the encoders by name.

    Raises:
        InputError: If there is none, two have the same name, or one cannot be read.
    """
    files = [named_file(text) for text in made.encoder]
    stems = [Path(file).stem for _, file in files]
    # The files that runs write have one name; their paths tell them apart.
    given = [
        (name or (stem if stems.count(stem) == 1 else file), file)
        for (name, file), stem in zip(files, stems, strict=True)
    ]
    built = {} if made.backbone is None else {made.backbone.arguments["name"]: made.backbone}
    names = [name for name, _ in given] + list(built)
    if not names:
        raise InputError("there is no encoder to evaluate: give --encoder FILE, or --backbone")
    if len(set(names)) < len(names):
        raise InputError(f"encoders need names of their own (--encoder NAME=FILE), got {names}")
    if (made.mean is None) != (made.std is None):
        raise InputError("--mean and --std belong together: give both")
    encoders: dict[str, Backbone] = {name: read_encoder(file) for name, file in given} | built
    if made.mean is not None:
        for backbone in encoders.values():
            backbone.normalisation = (made.mean, made.std)
    return encoders

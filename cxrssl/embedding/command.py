"""``cxrssl embed``: an encoder and an index in, a table of embeddings out."""

import sys
from collections.abc import Sequence
from dataclasses import fields

from jsonargparse import ArgumentParser

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.arguments import add_index, command_parser, place_index
from cxrssl.data import CXRDataModule
from cxrssl.data.failures import TooManyCorruptImagesError
from cxrssl.embedding.options import EmbedOptions
from cxrssl.embedding.run import Embedding, embed
from cxrssl.errors import InputError
from cxrssl.exit_codes import exit_code
from cxrssl.tasks.encoder import read_encoder

__all__ = ["run"]

_USAGE = (
    "cxrssl embed --encoder ENCODER [INDEX] OUT.parquet|OUT.npz [--tokens class|mean|both|patches] "
    "[--layer N] [--data.KEY VALUE ...]"
)
_DESCRIPTION = """\
Write what an encoder makes of every image of an index, beside all columns of the index. INDEX is
what CXRDataModule takes, or there is none and --data names a dataset. Started by torchrun or srun,
each process does its share. Run again, it goes on where it was."""


def run(arguments: Sequence[str]) -> int:
    """Embed as the arguments say, and return the command's exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    config = parser.parse_args(list(arguments))
    place_index(config)
    options = EmbedOptions(**{field.name: config[field.name] for field in fields(EmbedOptions)})
    data: CXRDataModule = parser.instantiate(config).data
    try:
        done = embed(read_encoder(config.encoder), data, config.out, options)
    except TooManyCorruptImagesError as error:
        raise InputError(f"{error}. Finished parts are kept") from None
    sys.stdout.write(f"{_summary(done)}\n")


def _parser() -> ArgumentParser:
    parser = command_parser("embed", _DESCRIPTION, _USAGE)
    add_index(parser)
    parser.add_argument("out", type=str, help="Table to write, .parquet or .npz.")
    parser.add_argument(
        "--encoder",
        type=str,
        required=True,
        help="File or folder of any known format, timm:NAME or hf:ORGANISATION/NAME.",
    )
    parser.add_subclass_arguments(CXRDataModule, "data", skip={"views"}, required=False)
    parser.set_defaults({"data": {"class_path": "CXRDataModule"}})
    parser.add_class_arguments(EmbedOptions, None)
    return parser


def _summary(done: Embedding) -> str:
    rate = done.encoded / done.seconds
    lines = [f"Encoded {done.encoded:,} images in {done.seconds:,.1f} s, {rate:,.0f} a second."]
    if done.left:
        lines.append(f"{done.left:,} parts are left to other processes: {done.out}.parts")
        return "\n".join(lines)
    shape = " x ".join(map(str, done.shape))
    lines.append(f"{done.images:,} images, {shape} numbers each: {done.out}")
    if done.failed:
        lines.append(f"{done.failed:,} could not be read: {done.out}.failures.csv")
    return "\n".join(lines)

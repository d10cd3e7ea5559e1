"""``cxrssl pack``: an index in, a packed store out."""

import sys
from collections.abc import Sequence
from dataclasses import fields

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.arguments import add_index, command_parser, place_index
from cxrssl.data import CXRDataModule
from cxrssl.exit_codes import exit_code
from cxrssl.packing.options import PackOptions
from cxrssl.packing.pack import Packed, pack, verify_store

__all__ = ["run"]

_USAGE = "cxrssl pack [INDEX] OUT [--size N] [--bits 8|16] [--verify] [--data.KEY VALUE ...]"
_DESCRIPTION = """\
Decode the images of an index once, on all cores, into a store that training reads at random:
--data.index OUT takes the place of the files, for every command. INDEX is what CXRDataModule takes,
or there is none and --data names a dataset. Run again, it goes on where it was; OUT --verify alone
checks a store."""
_SWITCHES = {
    "retry": "Try images again that could not be read before.",
    "verify": "Read the finished store back and check every image.",
}


def run(arguments: Sequence[str]) -> int:
    """Pack as the arguments say, and return the command's exit code."""
    return exit_code(lambda: _run(arguments))


def _run(arguments: Sequence[str]) -> None:
    parser = _parser()
    config = parser.parse_args(list(arguments))
    place_index(config)
    options = PackOptions(**{field.name: config[field.name] for field in fields(PackOptions)})
    if not (options.verify and _without_images(config)):
        data: CXRDataModule = parser.instantiate(config).data
        sys.stdout.write(f"{_summary(pack(data, config.out, options))}\n")
    if options.verify:
        images = verify_store(config.out, options)
        sys.stdout.write(f"Verified: all {images:,} images are as they were packed.\n")


def _parser() -> ArgumentParser:
    parser = command_parser("pack", _DESCRIPTION, _USAGE)
    add_index(parser)
    parser.add_argument("out", type=str, help="Folder of the store.")
    parser.add_subclass_arguments(CXRDataModule, "data", skip={"views"}, required=False)
    parser.set_defaults({"data": {"class_path": "CXRDataModule"}})
    parser.add_class_arguments(PackOptions, None, skip=set(_SWITCHES))
    for name, text in _SWITCHES.items():
        parser.add_argument(
            f"--{name}", action=ActionYesNo(no_prefix="no_"), default=False, help=text
        )
    return parser


def _without_images(config: Namespace) -> bool:
    """Return whether the data module was told of no images."""
    arguments = config.data.init_args
    return "index" in arguments and arguments.index is None and arguments.root is None


def _summary(packed: Packed) -> str:
    lines = [
        f"{packed.images:,} images, {packed.bytes / 1e6:,.1f} MB: {packed.folder}",
    ]
    if packed.decoded:
        rate = packed.decoded / packed.seconds
        lines.append(
            f"Decoded {packed.decoded:,} in {packed.seconds:,.1f} s, {rate:,.0f} a second."
        )
    else:
        lines.append("All of them were packed before.")
    if packed.failed:
        lines.append(f"{packed.failed:,} could not be read: {packed.folder}/failures.csv")
    lines.append(f"Train on it with --data CXRDataModule --data.index {packed.folder}")
    return "\n".join(lines)

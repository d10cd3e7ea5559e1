"""What the commands share in reading their arguments."""

import os
from argparse import SUPPRESS
from collections.abc import Iterable
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from cxrssl.errors import InputError

__all__ = ["add_index", "appending", "command_parser", "named_file", "place_index", "usable_cores"]


def appending(arguments: Iterable[str], *flags: str) -> list[str]:
    """Return arguments such that a repeated one of some flags adds to those before it.

    The parser would take the last one alone.
    """

    def mark(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        return f"{flag}+{equals}{value}" if flag in flags else argument

    return [mark(argument) for argument in arguments]


def add_index(parser: ArgumentParser) -> None:
    """Let a command take an index as its first word; :func:`place_index` hands it on."""
    parser.add_argument(
        "index",
        nargs="?",
        type=str,
        default=SUPPRESS,  # None would take the place of a config's
        help="CSV, Parquet file, pattern or folder; short for --data.index.",
    )


def place_index(config: Namespace) -> None:
    """Hand the index, where one is given, to the data module.

    Raises:
        InputError: If that has one already or takes none.
    """
    index = config.get("index")
    if index is None:
        return
    arguments = config.data.init_args
    if "index" not in arguments:
        raise InputError(
            f"{config.data.class_path.split('.')[-1]} takes no index: leave {index!r} out"
        )
    if arguments.index is not None:
        raise InputError(f"there are two indexes, {index!r} and data.index: give one of them")
    arguments.index = index


def command_parser(command: str, description: str, usage: str | None = None) -> ArgumentParser:
    """Return a parser with what all commands have: files of options, and no guessing of flags.

    Args:
        command: The word after ``cxrssl``.
        description: What ``--help`` says first.
        usage: The line above it; made from the options if None.
    """
    parser = ArgumentParser(
        prog=f"cxrssl {command}",
        usage=usage,
        description=description,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser.add_argument("--config", action="config", help="File with any of these keys.")
    return parser


def named_file(text: str) -> tuple[str | None, str]:
    """Return name and file of ``[NAME=]FILE``; a file that is there may have the sign itself."""
    name, equals, file = text.partition("=")
    return (name, file) if equals and not Path(text).exists() else (None, text)


def usable_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1

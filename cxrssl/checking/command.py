"""``cxrssl check``: indices in; what is corrupt, missing, duplicated or leaking out."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from cxrssl.arguments import appending, command_parser, usable_cores
from cxrssl.checking.check import FINGERPRINTS, TABLES, check
from cxrssl.checking.summary import summary

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.data import CXRDataModule
from cxrssl.data.duplicates import index_and_root
from cxrssl.errors import InputError
from cxrssl.exit_codes import exit_code

__all__ = ["run"]

_USAGE = "cxrssl check INDEX [--against INDEX[=ROOT]] ... [--out FOLDER] [--data.KEY VALUE ...]"
_DESCRIPTION = """\
Open every image of an index: what is corrupt, missing or blank, which images are copies of each
other, which patients stand in two splits, and which images of other indices and splits training on
it exposes. INDEX is a CSV, Parquet file, pattern or folder, short for --data.index; a release is
given as --data CLASS --data.root FOLDER instead. Exit code 0 when done, whatever was found; with
--strict 1 if anything was."""


def run(arguments: Sequence[str]) -> int:
    """Check as the arguments say; return the exit code, 1 where nothing was to be found."""
    failed: list[bool] = []
    code = exit_code(lambda: failed.append(_run(arguments)))
    return code or int(any(failed))


def _run(arguments: Sequence[str]) -> bool:
    """Check and write; return whether something was found that should not have been."""
    parser = _parser()
    config = parser.parse_args(appending(_named(arguments), "--against"))
    workers = usable_cores() if config.workers is None else config.workers
    if workers < 0:
        raise InputError(f"workers must be at least 0, got {workers}")
    folder = Path(config.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} is no folder to write to ({error.strerror})") from error
    checked = check(
        _modules(_name(config), parser.instantiate(config)),
        folder,
        workers=workers,
        hashes=config.hashes,
        progress=True,
    )
    checked.write(folder)
    files = [f"{name}.csv" for name in TABLES] + [FINGERPRINTS] * checked.opened
    sys.stdout.write(f"{summary(checked)}\n{folder}: {', '.join(files)}\n")
    return bool(config.strict) and not checked.clean


def _named(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flag of the index, if that stands first."""
    if not arguments or arguments[0].startswith("-"):
        return list(arguments)
    index, *others = arguments
    if any(word.partition("=")[0] == "--data.index" for word in others):
        raise InputError(f"there are two indexes, {index!r} and data.index: give one of them")
    # In the end, where a class that takes no index has been chosen already and refuses it.
    return [*others, f"--data.index={index}"]


def _parser() -> ArgumentParser:
    parser = command_parser("check", _DESCRIPTION, _USAGE)
    parser.add_argument(
        "--against",
        metavar="INDEX[=ROOT]",
        type=list[str],
        default=[],
        help="Index to be evaluated on, with the folder its paths start from; may be repeated.",
    )
    parser.add_argument(
        "--out", type=str, default="check", help="Folder for tables and fingerprints."
    )
    parser.add_argument(
        "--workers", type=int | None, default=None, help="Processes; one a core by default."
    )
    parser.add_argument(
        "--hashes", type=bool, default=True, help="false opens no image and compares names alone."
    )
    parser.add_argument(
        "--strict",
        action=ActionYesNo(no_prefix="no_"),
        default=False,
        help="Exit with code 1 if anything was found.",
    )
    parser.add_subclass_arguments(CXRDataModule, "data", skip={"views"}, required=False)
    parser.set_defaults({"data": {"class_path": "CXRDataModule"}})
    return parser


def _modules(name: str, made: Namespace) -> dict[str, CXRDataModule]:
    """Return the data modules by the names of their indices, that which is trained on first."""
    modules: dict[str, CXRDataModule] = {name: made.data}
    for text in made.against:
        file, root = index_and_root(text)
        if file in modules:
            raise InputError(f"the index {file} is given twice: its own splits are compared anyway")
        modules[file] = CXRDataModule(file, root)
    return modules


def _name(config: Namespace) -> str:
    """Return what the first index is called on the screen and in tables."""
    arguments = config.data.init_args
    given = [arguments.get(key) for key in ("index", "root")]
    return next((str(name) for name in given if name), config.data.class_path.split(".")[-1])

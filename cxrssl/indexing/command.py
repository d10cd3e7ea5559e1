"""``cxrssl index``: a release in, an index and what it holds out."""

import difflib
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jsonargparse import ActionYesNo, ArgumentParser

# Bare class names on the command line resolve among the classes that have been imported.
from cxrssl.arguments import command_parser
from cxrssl.data import CXRDataModule, Release
from cxrssl.data.releases.verify import compare
from cxrssl.errors import InputError
from cxrssl.exit_codes import exit_code
from cxrssl.indexing.summary import differences_table, index_summary

__all__ = ["run"]

_USAGE = "cxrssl index DATASET ROOT OUT.parquet [--verify] [--data.KEY VALUE ...]"
_DESCRIPTION = """\
Read the folder of a release into an index: one row per image, checked. DATASET is a class such as
NIHChestXray14 (all of them: --data.help), OUT ends in .parquet or .csv; its paths are relative to
the folder of the images."""
_POSITIONS = ("--data={}", "--data.root={}", "--out={}")


def run(arguments: Sequence[str]) -> int:
    """Index as the arguments say, and return the exit code; 1 where counts were to agree."""
    differences: list[bool] = []
    code = exit_code(lambda: differences.append(_run(arguments)))
    return code or int(any(differences))


def _run(arguments: Sequence[str]) -> bool:
    """Write an index; return whether counts that were to be verified differ."""
    parser = _parser()
    config = parser.parse_args(_named(arguments))
    out = Path(config.out)
    if out.suffix not in (".parquet", ".csv"):
        raise InputError(f"the index must end in .parquet or .csv, got {config.out}")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent} is no folder: create it first")
    module: CXRDataModule = parser.instantiate(config).data
    index = module.index
    folder = module.image_folder
    _write(index, folder, out)
    title = module.title if isinstance(module, Release) else type(module).__name__
    sys.stdout.write(f"{title}\n{index_summary(index)}\n\n{_how_to_use(module, out)}\n")
    if not config.verify:
        return False
    if not isinstance(module, Release) or not module.counts:
        raise InputError(f"{title} has no published counts to verify: leave --verify out")
    differences = compare(index, module.counts)
    sys.stdout.write(f"\n{differences_table(module.counts, differences)}\n")
    return bool(differences)


def _named(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the flags of the three that stand first."""
    first = arguments[: len(_POSITIONS)]
    if len(first) < len(_POSITIONS) or any(word.startswith("-") for word in first):
        return list(arguments)
    _refuse_unknown(first[0])
    named = [flag.format(word) for flag, word in zip(_POSITIONS, first, strict=True)]
    return named + list(arguments[len(_POSITIONS) :])


def _refuse_unknown(dataset: str) -> None:
    """Refuse a bare name of no class; one with dots may still be imported."""
    known = sorted(_names(CXRDataModule))
    if "." in dataset or dataset in known:
        return
    close = difflib.get_close_matches(dataset, known) or known
    raise InputError(
        f"there is no dataset {dataset!r}; did you mean {' or '.join(close)}? A class of your own "
        "is named with its module: my_module.MyDataset"
    )


def _names(parent: type) -> set[str]:
    """Return the names of a class and all below it that can be built."""
    children: list[type] = parent.__subclasses__()
    below = {name for child in children for name in _names(child)}
    return below if inspect.isabstract(parent) else below | {parent.__name__}


def _parser() -> ArgumentParser:
    parser = command_parser("index", _DESCRIPTION, _USAGE)
    parser.add_argument("--out", type=str, required=True, help="The index to write.")
    parser.add_argument(
        "--verify",
        action=ActionYesNo(no_prefix="no_"),
        default=False,
        help="Compare what is there with what a whole release has; exit code 1 if it differs.",
    )
    parser.add_subclass_arguments(CXRDataModule, "data", skip={"views"}, required=True)
    return parser


def _write(index: pd.DataFrame, folder: str, out: Path) -> None:
    """Write the index with paths relative to the folder of the images."""
    beginning = os.path.join(folder, "") if folder else ""
    relative = index.assign(path=index["path"].str.removeprefix(beginning))
    part = out.with_name(out.name + ".part")
    try:
        if out.suffix == ".csv":
            relative.to_csv(part, index=False)
        else:
            relative.to_parquet(part, index=False)
        part.replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror or error}") from error


def _how_to_use(module: CXRDataModule, out: Path) -> str:
    """Return the flags that train on the index."""
    flags = [f"--data.index {out}", f"--data.root {module.image_folder}"]
    rules = module.mask_rules
    if module.structures and rules.format != "file":
        flags.append(f"--data.masks.format {rules.format}")
        if rules.frame is not None:
            flags.append(f"--data.masks.frame '{list(rules.frame)}'")
    return f"Written: {out}. Train on it with --data CXRDataModule {' '.join(flags)}"

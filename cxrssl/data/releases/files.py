"""Where the files of a release are, whatever folders a copy of it has put them in."""

import fnmatch
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxrssl.data.archive import split_row
from cxrssl.data.image import IMAGE_SUFFIXES
from cxrssl.errors import InputError

__all__ = [
    "existing_files",
    "find_file",
    "find_files",
    "find_optional",
    "find_under",
    "locate",
    "mask_files",
    "read_names",
    "unlisted",
    "warn_of_split",
]

_THREADS = 16
"""Questions to a file system on a network are asked at once: it is the answer that takes long."""
_LISTED = 8
_MASK_SUFFIXES = IMAGE_SUFFIXES | {".bmp", ".gif"}


def find_file(root: Path, *patterns: str, release: str) -> Path:
    """Return the first file that any of some patterns matches, in their order.

    Args:
        root: Folder of the release.
        patterns: Names or patterns relative to it, with ``*`` and ``**``; the newest name first.
        release: What the folder should be a release of, for the message.

    Raises:
        InputError: If there is none; it says what was looked for and what the folder holds.
    """
    if found := find_optional(root, *patterns):
        return found
    there = sorted(path.name for path in root.iterdir())
    held = ", ".join(there[:_LISTED]) + (", ..." if len(there) > _LISTED else "")
    raise InputError(
        f"{root} is no release of {release}: it has no {' or '.join(patterns)}, only "
        f"{held or 'nothing'}; give the folder that holds this file as root"
    )


def find_optional(root: Path, *patterns: str) -> Path | None:
    """Return what `find_file` does, None if there is none: for files a release may come without."""
    for pattern in patterns:
        if found := sorted(root.glob(pattern)):
            return found[0]
    return None


def find_files(
    root: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES, *, ignore: Sequence[str] = ()
) -> dict[str, str]:
    """Return the path relative to a folder, with slashes, of every file below it by its name.

    Folders are walked in sorted order, hidden ones left out; of two files with one name the first
    is kept.

    Args:
        root: Where to look.
        suffixes: Suffixes in lower case of the files that are wanted.
        ignore: Patterns of folder names not to walk into, such as ``mask*``.
    """
    wanted = tuple(suffixes)
    found: dict[str, str] = {}
    for parent, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not _ignored(name, ignore))
        prefix = os.path.relpath(parent, root).replace(os.sep, "/")
        prefix = "" if prefix == "." else prefix + "/"
        for name in names:
            if name.lower().endswith(wanted) and not name.startswith("."):
                found.setdefault(name, prefix + name)
    return found


def find_under(
    root: Path, *patterns: str, suffixes: Iterable[str] = IMAGE_SUFFIXES
) -> dict[str, str]:
    """Return what `find_files` does of the folders that patterns match, relative to the root.

    Args:
        root: Where to look.
        patterns: Folders relative to it, with ``*`` and ``**``.
        suffixes: Suffixes in lower case of the files that are wanted.
    """
    wanted = tuple(suffixes)
    found: dict[str, str] = {}
    for pattern in patterns:
        for folder in sorted(path for path in root.glob(pattern) if path.is_dir()):
            prefix = folder.relative_to(root).as_posix()
            for name, path in find_files(folder, wanted).items():
                found.setdefault(name, path if prefix == "." else f"{prefix}/{path}")
    return found


def mask_files(root: Path, *patterns: str) -> dict[str, str]:
    """Return the references to all masks in some folders by their names without the suffix.

    They are absolute paths, since relative ones start from the folder of the images.

    Args:
        root: Folder of the release.
        patterns: Folders relative to it, with ``*`` and ``**``.
    """
    found = find_under(root, *patterns, suffixes=_MASK_SUFFIXES)
    start = os.path.abspath(root)
    return {os.path.splitext(name)[0]: os.path.join(start, path) for name, path in found.items()}


def _ignored(name: str, patterns: Sequence[str]) -> bool:
    return name.startswith(".") or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def locate(names: Iterable[str], found: Mapping[str, str]) -> list[str]:
    """Return the path of each named file; the name itself, which will be missed, if there is none.

    A file with another suffix, as resized copies have, is as good.

    Args:
        names: Names with or without a suffix.
        found: Paths by names, from `find_files`.
    """
    stems: dict[str, str] = {}
    for name, path in found.items():
        stems.setdefault(_stem(name), path)
    return [found.get(name) or stems.get(_stem(name), name) for name in names]


def unlisted(found: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Return the paths of files that no table speaks of, by their names without the suffix.

    Args:
        found: Paths by names, from `find_files`.
        names: Names in the table, with or without a suffix.
    """
    listed = {_stem(name) for name in names}
    others: dict[str, str] = {}
    for name, path in found.items():
        if (stem := _stem(name)) not in listed:
            others.setdefault(stem, path)
    return others


def _stem(name: str) -> str:
    """Return a name without the suffix of an image; other dots, as in identifiers, stay."""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def existing_files(root: str, paths: Sequence[str]) -> NDArray[np.object_]:
    """Return each path that exists, with another suffix of an image where only that does, or None.

    A row of an archive, ``file.npz#row``, exists where its file does.

    Args:
        root: Folder that the paths start from.
        paths: Paths (n,).
    """

    def check(path: str) -> str | None:
        file, _ = split_row(path) or (path, "")
        if os.path.isfile(os.path.join(root, file)):
            return path
        others = (_stem(path) + suffix for suffix in sorted(IMAGE_SUFFIXES))
        return next((path for path in others if os.path.isfile(os.path.join(root, path))), None)

    with ThreadPoolExecutor(_THREADS) as pool:
        return np.array(list(pool.map(check, paths, chunksize=256)), dtype=np.object_)


def read_names(file: Path) -> list[str]:
    """Return the names in a file, one in each line; empty lines are none."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as a list of names: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def warn_of_split(root: Path, *files: str) -> None:
    """Warn that the files of an official split are not there, so that another takes its place."""
    warnings.warn(
        f"{root} has no {' and no '.join(files)}: patients are divided, which is not the official "
        "split",
        stacklevel=3,
    )

"""Files that appear whole or not at all."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

__all__ = ["remove_leftovers", "written_whole"]

_SUFFIX = ".part"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside a file, which takes the file's place once it is written.

    It lies in the same folder, for a move between file systems is a copy, and a copy can be
    interrupted. It is on the disk before it gets its name, so that a power cut does not leave a
    name without content. An error leaves the file that was there before.

    Args:
        path: The file; its folder is made where there is none.

    Raises:
        OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, older_than: timedelta = timedelta()) -> None:
    """Remove what processes that were killed while writing have left in and below a folder.

    Args:
        folder: Where to look.
        older_than: Younger files are left, where another process may be at work.
    """
    newest = time.time() - older_than.total_seconds()
    for path in folder.rglob(f".*{_SUFFIX}"):
        if path.stat().st_mtime <= newest:
            path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

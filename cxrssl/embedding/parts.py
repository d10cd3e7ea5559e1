"""The folder of finished parts, of which a table is made when all are there."""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["Part", "PartFolder"]

_SETTINGS = "settings.json"


class Part(NamedTuple):
    """The tokens of some images in a row.

    Attributes:
        features: (n, ...), NaN for images that could not be read.
        errors: What went wrong with each image, (n,); empty where nothing did.
    """

    features: NDArray[np.floating]
    errors: list[str]


class PartFolder:
    """Parts of a table on their way; several processes may write into it.

    Args:
        folder: Where they are; made if need be.
        settings: Plain data that decides what is in them.
        parts: How many there are in all.

    Raises:
        InputError: If a run with other settings was interrupted there, or it cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], parts: int) -> None:
        self.folder = folder
        self.parts = parts
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder} cannot be written ({error.strerror})") from error
        text = json.dumps(settings, indent=1, sort_keys=True)
        path = folder / _SETTINGS
        if path.is_file():
            _refuse_other(folder, json.loads(path.read_text()), json.loads(text))
        else:
            _replace(path, text.encode())

    def missing(self) -> list[int]:
        """Return the numbers of parts that are not there, or damaged; none once it is removed."""
        if not self.folder.is_dir():
            return []  # another process has made the table
        return [number for number in range(self.parts) if not self._whole(number)]

    def write(self, number: int, part: Part) -> None:
        """Write a part, whole or not at all."""
        path = self._path(number)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                np.savez(file, features=part.features, errors=np.array(part.errors, dtype=np.str_))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, number: int) -> Part:
        """Return a part."""
        with np.load(self._path(number), allow_pickle=False) as arrays:
            return Part(arrays["features"], arrays["errors"].tolist())

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.npz"

    def _whole(self, number: int) -> bool:
        # The list of a zip file stands at its end: one that was cut off has none.
        return zipfile.is_zipfile(self._path(number))


def _refuse_other(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    names: Sequence[str] = [*here, *(name for name in there if name not in here)]
    for name in names:
        if there.get(name) != here.get(name):
            raise InputError(
                f"{folder} is of an interrupted run with other settings ({name} was "
                f"{there.get(name)} and is {here.get(name)}): repeat them, or remove the folder"
            )


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)

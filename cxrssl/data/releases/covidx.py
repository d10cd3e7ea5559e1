"""COVIDx, the pooled dataset of COVID-Net."""

import os
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from cxrssl.data.releases.files import find_file, read_names
from cxrssl.data.releases.release import Release
from cxrssl.errors import InputError

__all__ = ["COVIDx"]

_VERSIONS = ("9B", "9A", "8B", "8A", "5", "")
_CLASSES = {
    "COVID-19": (1, 0, 0),
    "positive": (1, 0, 0),
    "normal": (0, 1, 0),
    "pneumonia": (0, 0, 1),
    "negative": (0, np.nan, np.nan),
}
_SOURCES = {"rnsa": "rsna"}


class COVIDx(Release):
    """COVIDx (Wang et al., Scientific Reports 2020): radiographs pooled from eight sources.

    Reads ``train_COVIDx<version>.txt`` and the test list of the same version, where it is, in the
    folder or in ``labels``, or ``train.txt`` and ``test.txt``; the images in ``data/train`` and
    ``data/test``, in ``train`` and ``test``, or in one folder. The classes exclude one another, so
    ``pneumonia`` is that of another cause; lists of two classes leave open which of ``normal`` and
    ``pneumonia`` a negative image is. Patients are known by source and number; the oldest list has
    no sources, and so no patients. Images of the RSNA challenge have its names as origin. See
    `Release` for the other arguments.

    Args:
        root: Folder of the release.
        version: Version of the lists: 9B, 9A, 8B, 8A, 5, or an empty text for the oldest; the
            first of these that is there if None. Those of severity are not read.
        options: See `Release`.

    Raises:
        InputError: If the version is none of these.
    """

    title: ClassVar[str] = "COVIDx"
    collection: ClassVar[str] = "covidx"
    findings: ClassVar[tuple[str, ...]] = ("COVID-19", "normal", "pneumonia")
    counts: ClassVar[dict[str, int]] = {"images": 30_882, "test": 400, "COVID-19": 16_690}
    traps: ClassVar[tuple[str, ...]] = (
        "lists of three or four words, without a header",
        "patients with a blank in their number",
        "numbers that mean another patient in another source",
        "`rnsa` for rsna",
        "images of other datasets",
        "a source that gives the label away",
    )

    def __init__(self, root: str, *, version: str | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        if version is not None and version not in _VERSIONS:
            raise InputError(
                f"version must be one of {', '.join(map(repr, _VERSIONS))}, got {version!r}"
            )
        self.version = version

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the lists."""
        patterns = [
            f"{folder}train_COVIDx{version}.txt"
            for version in (_VERSIONS if self.version is None else (self.version,))
            for folder in ("labels/", "")
        ]
        if self.version is None:
            patterns.append("train.txt")
        train = find_file(root, *patterns, release=self.title)
        test = train.with_name(train.name.replace("train", "test"))
        frames = [_read_list(Path(self.images_root), train, "train")]
        if test.is_file():
            frames.append(_read_list(Path(self.images_root), test, "test"))
        return pd.concat(frames, ignore_index=True).drop_duplicates("path", ignore_index=True)

    def common_labels(self, index: pd.DataFrame) -> pd.DataFrame:
        """Return the labels of the common vocabulary.

        ``pneumonia`` is the class of other pneumonias: that an image of COVID-19 is not in it does
        not mean that it shows none.
        """
        labels = super().common_labels(index)
        return labels.assign(Pneumonia=labels["Pneumonia"].mask(index["COVID-19"] == 1))


class _Row(NamedTuple):
    patient: str
    name: str
    label: str
    source: str


def _read_list(images: Path, file: Path, split: str) -> pd.DataFrame:
    rows = [_parse(line, row, file) for row, line in enumerate(read_names(file), 1)]
    table = pd.DataFrame(rows, columns=list(_Row._fields), dtype="string")
    folder = _folder(images, split)
    known = table["source"] != ""
    frame = pd.DataFrame(
        {
            "path": folder + table["name"],
            "patient_id": (table["source"] + ":" + table["patient"]).where(known),
            "view_position": pd.array([pd.NA] * len(table), dtype="string"),
            "split": split,
            **_origins(table, known),
        }
    )
    frame[list(COVIDx.findings)] = np.array(
        [_CLASSES[row.label] for row in rows], dtype=np.float32
    ).reshape(-1, len(COVIDx.findings))
    return frame


def _parse(line: str, row: int, file: Path) -> _Row:
    """Return what a line says; from the right, as the patient may have blanks."""
    words = line.split()
    source = words.pop() if words[-1] not in _CLASSES else ""
    if len(words) < 3 or words[-1] not in _CLASSES:
        raise InputError(
            f"{file}: row {row} is {line[:80]!r}; a patient, a file, one of {', '.join(_CLASSES)} "
            "and a source are expected: is it a list of classes?"
        )
    *patient, name, label = words
    return _Row(" ".join(patient), name, label, _SOURCES.get(source, source))


def _folder(images: Path, split: str) -> str:
    """Return the beginning of the paths of a split."""
    folders = (f"data/{split}/", f"{split}/")
    return next((folder for folder in folders if (images / folder).is_dir()), "")


def _origins(table: pd.DataFrame, known: "pd.Series[bool]") -> dict[str, "pd.Series[str]"]:
    """Return the names of images and patients in the collections that they come from.

    The challenge of the RSNA names images, not patients.
    """
    rsna = table["source"] == "rsna"
    source = ("covidx-" + table["source"]).where(known, "covidx")
    stems = table["name"].map(lambda name: os.path.splitext(name)[0]).astype("string")
    return {
        "origin": (source + ":" + table["name"]).mask(rsna, "rsna:" + stems),
        "origin_patient": (source + ":" + table["patient"]).where(known & ~rsna),
    }

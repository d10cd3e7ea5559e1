"""CheXpert Plus."""

import json
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from cxrssl.data.releases.chexpert_files import (
    CHEXPERT_FINDINGS,
    chexpert_names,
    chexpert_views,
)
from cxrssl.data.releases.fields import ages, official_splits, sexes
from cxrssl.data.releases.files import find_file, find_optional
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, number, read_table
from cxrssl.errors import InputError

__all__ = ["CheXpertPlus"]

_COLUMNS = ("path_to_image", "frontal_lateral", "ap_pa", "section_findings", "age", "sex",
            "recent_bmi", "split")  # fmt: skip
_FORMATS = {"png": ("PNG", ".png"), "dicom": ("DICOM", ".dcm")}
_DEPTH = 4
"""Folders below that of the format in which patients are looked for at most."""


class CheXpertPlus(Release):
    """CheXpert Plus (Chambon et al., 2024): the images of CheXpert with their reports.

    Reads ``df_chexpert_plus_*.csv``, the labels that CheXbert gave and the images below ``PNG`` or
    ``DICOM``, in as many folders as their archives unpack to; a patient is in one of them. Images
    have the names they have in CheXpert. The section of findings is the column `text`. Uncertain
    labels are -1, all are missing without ``chexbert_labels``. See `Release` for the other
    arguments.

    Args:
        root: Folder of the release.
        format: Files to read.
        section: Section of the report that CheXbert read for the labels; report is all of it.
        options: See `Release`.
    """

    title: ClassVar[str] = "CheXpert Plus"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "chexpert"
    findings: ClassVar[tuple[str, ...]] = CHEXPERT_FINDINGS
    counts: ClassVar[dict[str, int]] = {
        "images": 223_462,
        "patients": 64_725,
        "train": 223_228,
        "val": 234,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "paths end in .jpg, files in .png",
        "reports of several lines",
        "labels as a JSON object in each line",
        "leftovers of downloads",
        "DICOM files without HighBit",
        "the same images as CheXpert",
    )

    def __init__(
        self,
        root: str,
        *,
        format: Literal["png", "dicom"] = "png",  # noqa: A002 - what it is of an image file
        section: Literal["report", "findings", "impression"] = "report",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.format = format
        self.section = section

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table."""
        file = find_file(root, "df_chexpert_plus_*.csv*", release=self.title)
        table = read_table(file, _COLUMNS)
        names = chexpert_names(table["path_to_image"], file)
        frame = names[["image", "study_id", "patient_id"]].assign(
            path=_paths(Path(self.images_root), names, *_FORMATS[self.format]),
            view_position=chexpert_views(table["frontal_lateral"], table["ap_pa"], file),
            split=official_splits(table["split"], file),
            sex=sexes(table["sex"]),
            age=ages(table["age"]),
            bmi=number(table["recent_bmi"]),
            text=table["section_findings"].str.split().str.join(" "),
        )
        labels = self._labels(root, names["image"])
        frame[list(self.findings)] = labels
        return frame

    def _labels(self, root: Path, images: "pd.Series[str]") -> pd.DataFrame | float:
        """Return the labels (n, F) of images, NaN of those, or of all, that have none."""
        name = f"{self.section}_fixed.json"
        file = find_optional(root, f"chexbert_labels/{name}", name)
        if file is None:
            return np.nan
        table = _read_lines(file, ("path_to_image", *self.findings))
        labels = labels_of_columns(table, self.findings, file)
        labels = labels.set_index(chexpert_names(table["path_to_image"], file)["image"])
        return labels[~labels.index.duplicated()].reindex(images).reset_index(drop=True)


def _read_lines(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the objects of a file, one in each line, as a table of text; null is empty."""
    rows = []
    with open(file, encoding="utf-8-sig") as lines:
        for line, text in enumerate(lines, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
                rows.append(["" if row[name] is None else str(row[name]) for name in columns])
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{file}: line {line} is no JSON object with path_to_image and the 14 "
                    f"findings: {error!r}"
                ) from None
    return pd.DataFrame(rows, columns=list(columns), dtype="str")


def _paths(images: Path, names: pd.DataFrame, top: str, suffix: str) -> "pd.Series[str]":
    """Return where images are (n,), relative to their folder."""
    start = find_optional(images, top) or images
    places = _places(start, "" if start == images else f"{top}/")
    key = names["part"] + "/" + names["patient_id"]
    return key.map(places).fillna("") + names["part"] + "/" + names["image"] + suffix


def _places(start: Path, prefix: str) -> dict[str, str]:
    """Return what is before ``train/patient00001`` in the path of each patient below a folder.

    Folders of patients are not entered: there are too many to ask a file system on a network.
    """
    places: dict[str, str] = {}
    level = [""]
    for _ in range(_DEPTH):
        below = []
        for folder in level:
            for name in _folders(start / folder):
                if name in ("train", "valid"):
                    for patient in _folders(start / folder / name):
                        places.setdefault(f"{name}/{patient}", prefix + folder)
                else:
                    below.append(f"{folder}{name}/")
        level = below
    return places


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())

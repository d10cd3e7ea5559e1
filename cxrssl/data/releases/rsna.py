"""RSNA Pneumonia Detection Challenge."""

import json
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd

from cxrssl.data.releases.boxes import Box, boxes_by_image
from cxrssl.data.releases.files import (
    find_file,
    find_files,
    find_optional,
    locate,
    read_names,
    unlisted,
)
from cxrssl.data.releases.headers import DicomRelease
from cxrssl.data.releases.readers import refuse_unknown
from cxrssl.data.releases.tables import labels_of_columns, read_table
from cxrssl.errors import InputError

__all__ = ["RSNAPneumonia"]

Column: TypeAlias = "pd.Series[Any]"

_SIDES = ("x", "y", "width", "height")
_OPACITY = "Lung Opacity"
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


class RSNAPneumonia(DicomRelease):
    """RSNA Pneumonia Detection Challenge (Shih et al., 2019): 26,684 labelled radiographs, boxes.

    Reads ``stage_2_train_labels.csv`` and ``stage_2_detailed_class_info.csv``. Images they do not
    speak of are those of the test set, and are in the index without a label. What the tables call a
    patient is an image; all of them are of NIH ChestX-ray14. The mapping that the challenge has
    published says which, and with it patients are those of NIH, and stay in one split. Without it
    no patient is known, and images of one patient can be in several splits.

    Args:
        root: Folder of the release.
        nih_mapping: The mapping, a JSON file; None looks for
            ``pneumonia-challenge-dataset-mappings_2018.json`` or the like in the root.
        nih_test_list: ``test_list.txt`` of NIH ChestX-ray14: images in it are the test set, and all
            others are for training. Needs the mapping.
        options: See `DicomRelease`.
    """

    title: ClassVar[str] = "RSNA Pneumonia Detection Challenge"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "rsna"
    findings: ClassVar[tuple[str, ...]] = (
        "Normal",
        "No Lung Opacity / Not Normal",
        _OPACITY,
    )
    counts: ClassVar[dict[str, int]] = {
        "images": 29_684,
        "boxes": 9_555,
        "images with boxes": 6_012,
        "Normal": 8_851,
        "No Lung Opacity / Not Normal": 11_821,
        _OPACITY: 6_012,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "`patientId` names an image",
        "a row for each box",
        "images and patients of NIH",
        "an image of NIH under two names",
        "ages such as 155",
        "JPEG within DICOM",
    )

    def __init__(
        self,
        root: str,
        *,
        nih_mapping: str | None = None,
        nih_test_list: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.nih_mapping = nih_mapping
        self.nih_test_list = nih_test_list

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the tables, then those that are in no table."""
        file = find_file(root, "stage_2_train_labels.csv", "*train_labels*.csv",
                         "*/stage_2_train_labels.csv", release=self.title)  # fmt: skip
        table = read_table(file, ("patientId", *_SIDES, "Target"))
        info = find_optional(file.parent, "stage_2_detailed_class_info.csv", "*class_info*.csv")
        labels = _labels(table, file, info)
        found = find_files(Path(self.images_root), ignore=("mask*", "annotation*"))
        others = unlisted(found, labels.index)
        images = pd.Series([*labels.index, *others], dtype="string")
        frame = pd.DataFrame(
            {
                "path": [*locate(labels.index + ".dcm", found), *others.values()],
                "image": images,
                "boxes": boxes_by_image(_boxes(table, file), images),
            }
        )
        frame = self._with_nih(self.with_headers(frame), root)
        frame[list(self.findings)] = labels[list(self.findings)].reindex(images).to_numpy()
        return frame

    def _with_nih(self, frame: pd.DataFrame, root: Path) -> pd.DataFrame:
        """Return the frame with the patients and names of NIH, where the mapping has them."""
        file = self.nih_mapping or find_optional(root, _MAPPING, "*mapping*.json", f"*/{_MAPPING}")
        if file is None:
            if self.nih_test_list is not None:
                raise InputError(
                    f"nih_test_list names images of NIH, and {root} has no {_MAPPING} that says "
                    "which images are those: give it as nih_mapping"
                )
            return frame
        names = frame["image"].map(_read_mapping(Path(file))).astype("string")
        frame["patient_id"] = names.str.extract(r"^0*(\d+)_", expand=False)
        frame["origin"] = ("nih:" + names).fillna("rsna:" + frame["image"])
        frame["origin_patient"] = "nih:" + frame["patient_id"]
        if self.nih_test_list is not None:
            frame["split"] = _splits(names, Path(self.nih_test_list))
        return frame


def _labels(table: pd.DataFrame, file: Path, info: Path | None) -> pd.DataFrame:
    """Return labels (n, 3) by image; without the classes, what follows from the opacity alone."""
    target = labels_of_columns(table, ["Target"], file)["Target"]
    opacity = target.groupby(table["patientId"], sort=False).max()
    implied = (1 - opacity).where(opacity == 1)
    labels = pd.DataFrame(dict.fromkeys(RSNAPneumonia.findings, implied))
    if info is not None:
        classes = _classes(info, opacity, file)
        for name in RSNAPneumonia.findings:
            given = (classes == name).astype("float32")
            labels[name] = given.where(classes.notna(), implied)
    labels[_OPACITY] = opacity
    return labels


def _classes(info: Path, opacity: Column, file: Path) -> Column:
    """Return the class by image, missing where the table does not have it."""
    table = read_table(info, ("patientId", "class"))
    refuse_unknown(table["class"], RSNAPneumonia.findings, info)
    first = table.drop_duplicates("patientId").set_index("patientId")["class"]
    classes = first.reindex(opacity.index)
    wrong = np.flatnonzero(classes.notna() & ((classes == _OPACITY) != (opacity == 1)))
    if wrong.size:
        raise InputError(
            f"{opacity.index[wrong[0]]} is {classes.iloc[wrong[0]]!r} in {info}, but its Target is "
            f"{opacity.iloc[wrong[0]]:g} in {file}: are both of the same release?"
        )
    return classes


def _boxes(table: pd.DataFrame, file: Path) -> dict[str, list[Box]]:
    rows = table[table["Target"].str.strip().isin(["1", "1.0"])]
    sides = rows[list(_SIDES)].apply(pd.to_numeric, errors="coerce")
    wrong = np.flatnonzero(sides.isna().any(axis=1))
    if wrong.size:
        raise InputError(
            f"{file}: the box in row {rows.index[wrong[0]] + 1} has not four numbers, though its "
            "Target is 1"
        )
    boxes: dict[str, list[Box]] = {}
    for image, (x, y, width, height) in zip(rows["patientId"], sides.to_numpy(), strict=True):
        box = Box(_OPACITY, float(x), float(y), float(x + width), float(y + height))
        boxes.setdefault(image, []).append(box)
    return boxes


def _read_mapping(file: Path) -> dict[str, str]:
    """Return the NIH name by RSNA name of every image.

    Raises:
        InputError: If the file is no such mapping.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
        mapping = {str(entry["subset_img_id"]): str(entry["img_id"]) for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{file} cannot be read as a list of objects with subset_img_id and img_id: {error!r}"
        ) from error
    names = pd.Series(mapping, dtype="string")
    wrong = names[~names.str.fullmatch(r"\d+_\d+\.png")]
    if len(wrong):
        raise InputError(
            f"{file}: img_id is {wrong.iloc[0]!r} for {wrong.index[0]}; names of NIH are such as "
            "00000001_000.png"
        )
    return mapping


def _splits(names: Column, file: Path) -> Column:
    """Return test for images that a list names, train for others, missing for unknown names."""
    listed = names.isin(read_names(file))
    if not listed.any():
        raise InputError(
            f"{file} names none of the images: give test_list.txt of NIH ChestX-ray14 as "
            "nih_test_list"
        )
    split = pd.Series("train", index=names.index, dtype="string")
    return split.mask(listed, "test").where(names.notna())

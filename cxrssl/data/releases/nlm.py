"""The two sets of the National Library of Medicine on tuberculosis: Shenzhen and Montgomery."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cxrssl.data.image import ImageReadError, read_image
from cxrssl.data.releases.fields import ages, sexes
from cxrssl.data.releases.files import find_files, find_optional, locate, mask_files
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import read_table
from cxrssl.data.targets import MaskRules
from cxrssl.errors import InputError

__all__ = ["SHENZHEN_FINDINGS", "Montgomery", "Shenzhen"]

SHENZHEN_FINDINGS = (
    "Pleural_Effusion", "Apical_Thickening", "Single_Nodule_(non-calcified)",
    "Pleural_Thickening_(non-apical)", "Calcified_Nodule", "Small_Infiltrate_(non-linear)",
    "Cavity", "Linear_Density", "Severe_Infiltrate_(Consolidation)",
    "Thickening_of_interlobar_fissure", "Clustered_Nodule_(2mm-5mm_apart)",
    "Moderate_Infiltrate_(non-linear)", "Adenopathy", "Calcification_(other_than_nodule&lymphnod)",
    "Calcified_lymph_node", "Miliary", "Retraction", "Other", "Unknown",
)  # fmt: skip
"""What was outlined in the patients with tuberculosis, in the spelling of its table."""

_NO_IMAGES = ("mask*", "Mask*", "ManualMask*", "Annotations*")
_SEX = re.compile(r"female|male|\b[fm]\b", re.IGNORECASE)
_AGE = re.compile(r"\d+\s*[a-z]*", re.IGNORECASE)


class Shenzhen(Release):
    """Shenzhen chest X-ray set (Jaeger et al., 2014): 662 PA radiographs, 336 with tuberculosis.

    Reads the images ``CHNCXR_*`` anywhere below the folder, whose names end in the label, their
    clinical readings (sex, age, and the diagnosis as text), the lung masks ``CHNCXR_*_mask.png`` of
    566 images, and ``Statistics_ShenzhenDataset*.csv``, the number of regions of 19 findings. These
    were outlined in patients with tuberculosis only: they are missing of all others. There is no
    official split. See `Release` for the arguments.
    """

    title: ClassVar[str] = "Shenzhen"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "shenzhen"
    findings: ClassVar[tuple[str, ...]] = ("TB", *SHENZHEN_FINDINGS)
    structures_of_masks: ClassVar[tuple[str, ...]] = ("lungs",)
    mask_format: ClassVar[MaskRules] = MaskRules(resize=True)
    counts: ClassVar[dict[str, int]] = {"images": 662, "TB": 336, "masks": 566}
    traps: ClassVar[tuple[str, ...]] = (
        "the label is part of the name",
        "RGB files",
        "ages such as 45yrs and 2month",
        "blank lines in the readings",
        "96 images without a mask",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image or reading."""
        readings = _readings(root, r"CHNCXR_\d+_[01]")
        frame = _screened(self, r"CHNCXR_\d+_[01]", readings)
        first = frame["image"].map(lambda name: readings.get(name, [""])[0])
        frame["sex"] = sexes(_found(_SEX, first))
        frame["age"] = ages(_found(_AGE, first))
        frame["text"] = _joined(frame["image"].map(lambda name: readings.get(name, [])[1:]))
        masks = mask_files(root, "**/*[mM]ask*")
        names = frame["image"] + "_mask"
        frame["mask/lungs"] = names.map(masks).astype("string")
        frame["TB"] = _label(frame["image"])
        return pd.concat([frame, _regions(root, frame["image"])], axis=1)


class Montgomery(Release):
    """Montgomery County chest X-ray set (Jaeger et al., 2014): 138 PA radiographs, 58 with TB.

    Reads the images ``MCUCXR_*`` anywhere below the folder, whose names end in the label, their
    clinical readings (sex, age, and free text), and the masks in ``leftMask`` and ``rightMask``.
    Which of the two is the patient's left lung, on the right of a PA radiograph, is read off the
    masks of one image; ``lungs`` unites both. There is no official split. See `Release` for the
    arguments.
    """

    title: ClassVar[str] = "Montgomery County"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "montgomery"
    findings: ClassVar[tuple[str, ...]] = ("TB",)
    structures_of_masks: ClassVar[tuple[str, ...]] = ("lungs", "left lung", "right lung")
    mask_format: ClassVar[MaskRules] = MaskRules(resize=True)
    counts: ClassVar[dict[str, int]] = {"images": 138, "TB": 58, "mask/lungs": 138}
    traps: ClassVar[tuple[str, ...]] = (
        "the label is part of the name",
        "masks with the names of the images",
        "two orientations",
        "ages of 000Y",
        "empty readings",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image or reading."""
        readings = _readings(root, r"MCUCXR_\d+_[01]")
        frame = _screened(self, r"MCUCXR_\d+_[01]", readings)
        fields = [_fields(readings.get(name, [])) for name in frame["image"]]
        frame["sex"] = sexes(pd.Series([field["sex"] for field in fields], dtype=str))
        # Nobody of the age of 000Y was screened: it stands for none.
        age = ages(pd.Series([field["age"] for field in fields], dtype=str))
        frame["age"] = np.where(age > 0, age, np.nan)
        frame["text"] = _joined(pd.Series([field["text"] for field in fields], dtype=object))
        left, right = _sides(mask_files(root, "**/leftMask"), mask_files(root, "**/rightMask"))
        both = {name: f"{left[name]}|{right[name]}" for name in left.keys() & right.keys()}
        for structure, masks in (("lungs", both), ("left lung", left), ("right lung", right)):
            frame[f"mask/{structure}"] = frame["image"].map(masks).astype("string")
        frame["TB"] = _label(frame["image"])
        return frame


def _readings(root: Path, pattern: str) -> dict[str, list[str]]:
    """Return the lines that are not empty of each clinical reading, by the name of its image."""
    readings = {}
    for name, path in find_files(root, (".txt",)).items():
        if re.fullmatch(pattern, stem := Path(name).stem):
            text = (root / path).read_text(encoding="utf-8-sig", errors="replace")
            readings[stem] = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return readings


def _screened(release: Release, pattern: str, readings: Mapping[str, Any]) -> pd.DataFrame:
    """Return the columns path, image, patient_id and view_position of a set."""
    found = find_files(Path(release.images_root), ignore=_NO_IMAGES)
    stems = {Path(name).stem for name in found}
    names = sorted(readings.keys() | {stem for stem in stems if re.fullmatch(pattern, stem)})
    if not names:
        raise InputError(
            f"{release.root} is no release of {release.title}: no image or reading in it has a "
            f"name such as {pattern}; give the folder that holds them as root"
        )
    frame = pd.DataFrame({"path": locate(names, found), "image": names, "patient_id": names})
    return frame.assign(view_position="PA")


def _label(names: "pd.Series[str]") -> "pd.Series[float]":
    return names.str[-1].map({"0": 0.0, "1": 1.0})


def _found(pattern: re.Pattern[str], texts: "pd.Series[str]") -> "pd.Series[str]":
    """Return what a pattern finds first in each text, empty where it does not."""
    return texts.map(lambda text: match[0] if (match := pattern.search(text)) else "")


def _joined(lines: "pd.Series[Any]") -> "pd.Series[str]":
    return lines.map(lambda parts: "\n".join(parts) or pd.NA).astype("string")


def _regions(root: Path, names: "pd.Series[str]") -> pd.DataFrame:
    """Return the 19 findings as labels, missing where there is no table, or no row of an image."""
    columns = list(SHENZHEN_FINDINGS)
    file = find_optional(root, "**/Statistics_ShenzhenDataset*.csv")
    if file is None:
        return pd.DataFrame(np.nan, index=names.index, columns=columns)
    table = read_table(file, ("imagename", *columns))
    numbers = table[columns].apply(pd.to_numeric, errors="coerce")
    wrong = numbers.isna() & (table[columns].apply(lambda column: column.str.strip()) != "")
    if wrong.to_numpy().any():
        row, place = (int(first[0]) for first in np.nonzero(wrong.to_numpy()))
        raise InputError(
            f"{file}: {columns[place]!r} is {table[columns].iloc[row, place]!r} in row {row + 1}; "
            "a number of regions is expected"
        )
    # Small numbers of regions: an empty cell is none of them.
    labels = (numbers.fillna(0) > 0).astype("float64")
    labels.index = pd.Index([Path(name.strip()).stem for name in table["imagename"]])
    rows: pd.DataFrame = labels[~labels.index.duplicated()].reindex(names)
    return rows.set_axis(names.index)


def _fields(lines: list[str]) -> dict[str, Any]:
    """Return sex and age of a reading such as ``Patient's Sex: F``, and its other lines."""
    fields: dict[str, Any] = {"sex": "", "age": "", "text": []}
    for line in lines:
        key, _, value = line.partition(":")
        name = key.rpartition(" ")[2].lower()
        if name in ("sex", "age"):
            fields[name] = value.strip()
        elif line:
            fields["text"].append(line)
    return fields


def _sides(left: dict[str, str], right: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the masks of the patient's left and right lung, whichever way they were called."""
    for name in sorted(left.keys() & right.keys()):
        centres = _centre(left[name]), _centre(right[name])
        if centres[0] != centres[1] and np.isfinite(centres).all():
            return (left, right) if centres[0] > centres[1] else (right, left)
    return left, right


def _centre(file: str) -> float:
    """Return the mean column of a mask, NaN if it is empty or cannot be read."""
    try:
        columns = np.nonzero(read_image(file).pixels)[1]
    except ImageReadError:
        return np.nan
    return float(columns.mean()) if columns.size else np.nan

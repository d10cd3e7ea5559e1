"""JSRT with the masks of SCR."""

import re
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd

from cxrssl.data.releases.boxes import Box, boxes_by_image
from cxrssl.data.releases.fields import ages, sexes
from cxrssl.data.releases.files import find_files, locate, mask_files, read_names
from cxrssl.data.releases.release import Release
from cxrssl.data.targets import MaskRules
from cxrssl.errors import InputError

__all__ = ["JSRT"]

_STRUCTURES = ("heart", "left lung", "right lung", "left clavicle", "right clavicle")
_NAME = re.compile(r"JPC[LN]N\d{3}")
_MALIGNANT = {"malignant": 1.0, "benign": 0.0}
_SIDE = 2048
_SPACING = 0.175
"""Millimetres between pixels of the 2,048 x 2,048."""


class JSRT(Release):
    """JSRT (Shiraishi et al., 2000): 247 PA radiographs, 154 with a nodule, 100 of them malignant.

    Reads the images ``JPCLN*`` and ``JPCNN*``, raw or converted, anywhere below the folder,
    ``CLNDAT_EN.txt`` and ``CNNDAT_EN.TXT`` where they are, and the masks of SCR (van Ginneken et
    al., 2006) from folders named like ``left lung`` or ``left_lung``; ``lungs`` unites both lungs.
    SCR's folds are the split: odd numbers train, even ones test. The box of a nodule is a square of
    its size about its place, in pixels of the raw image. See `Release` for the arguments.
    """

    title: ClassVar[str] = "JSRT"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "jsrt"
    findings: ClassVar[tuple[str, ...]] = ("nodule", "malignant")
    structures_of_masks: ClassVar[tuple[str, ...]] = (*_STRUCTURES, "lungs")
    mask_format: ClassVar[MaskRules] = MaskRules(resize=True)
    counts: ClassVar[dict[str, int]] = {
        "images": 247,
        "test": 123,
        "nodule": 154,
        "malignant": 100,
        "mask/heart": 247,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "raw, inverted images without a header",
        "masks half as large as the images",
        "tables without a header whose lines end with a carriage return",
        "ages of ?",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image that the folder or the tables name."""
        found = find_files(Path(self.images_root), ignore=("mask*", "Mask*", "scratch"))
        stems = {Path(name).stem for name in found}
        known = _clinical(root)
        names = sorted(known.keys() | {stem for stem in stems if _NAME.fullmatch(stem)})
        if not names:
            raise InputError(
                f"{root} is no release of {self.title}: it has no image such as JPCLN001.IMG and "
                "no CLNDAT_EN.txt; give the folder that holds them as root"
            )
        frame = pd.DataFrame({"path": locate(names, found), "image": names, "patient_id": names})
        frame["view_position"] = "PA"
        odd = frame["image"].str[-3:].astype(int) % 2 == 1
        frame["split"] = np.where(odd, "train", "test")
        facts = [known.get(name, _Facts()) for name in names]
        frame["sex"] = sexes(pd.Series([fact.sex for fact in facts], dtype=str))
        frame["age"] = ages(pd.Series([fact.age for fact in facts], dtype=str))
        boxes = {name: list(fact.boxes) for name, fact in known.items()}
        frame["boxes"] = boxes_by_image(boxes, names)
        for structure, masks in _masks(root).items():
            frame[f"mask/{structure}"] = frame["image"].map(masks).astype("string")
        nodule = frame["image"].str.startswith("JPCLN")
        frame["nodule"] = nodule.astype("float64")
        frame["malignant"] = np.where(nodule, [fact.malignant for fact in facts], 0.0)
        return frame


class _Facts(NamedTuple):
    """What the clinical tables say of an image."""

    sex: str = ""
    age: str = ""
    malignant: float = np.nan
    boxes: tuple[Box, ...] = ()


def _clinical(root: Path) -> dict[str, _Facts]:
    """Return the facts by the name of the image."""
    facts: dict[str, _Facts] = {}
    for name, path in find_files(root, (".txt",)).items():
        if name.lower() == "clndat_en.txt":
            facts |= _with_nodules(root / path)
        elif name.lower() == "cnndat_en.txt":
            facts |= _without_nodules(root / path)
    return facts


def _with_nodules(file: Path) -> dict[str, _Facts]:
    """Read lines of file, subtlety, size, age, sex, x, y, malignant or benign, and place."""
    facts = {}
    for row, line in enumerate(read_names(file)):
        cells = [cell.strip() for cell in line.split("\t")]
        if not (name := _name(cells[0])):
            continue
        if len(cells) < 8 or cells[7].lower() not in _MALIGNANT:
            raise InputError(
                f"{file}: row {row + 1} ({cells[0]}) does not say malignant or benign in its "
                "eighth cell; cells are separated by tabs"
            )
        box = _box(cells[2], cells[5], cells[6])
        malignant = _MALIGNANT[cells[7].lower()]
        facts[name] = _Facts(cells[4], cells[3], malignant, () if box is None else (box,))
    return facts


def _without_nodules(file: Path) -> dict[str, _Facts]:
    """Read lines of file, age and sex, separated by blanks."""
    facts = {}
    for line in read_names(file):
        cells = line.split()
        if name := _name(cells[0]):
            sex = next((cell for cell in cells[1:] if cell.lower() in ("male", "female")), "")
            age = next((cell for cell in cells[1:] if cell.isdigit()), "")
            facts[name] = _Facts(sex, age)
    return facts


def _name(file: str) -> str | None:
    """Return the name of the image, None for a line that speaks of none."""
    match = _NAME.match(file.upper())
    return None if match is None else match[0]


def _box(size: str, x: str, y: str) -> Box | None:
    """Return the square about a nodule of a size in millimetres, as far as it is in the image."""
    try:
        radius, column, row = float(size) / _SPACING / 2, float(x), float(y)
    except ValueError:
        return None
    edges = [column - radius, row - radius, column + radius, row + radius]
    left, top, right, bottom = np.clip(edges, 0, _SIDE).round(1).tolist()
    return Box("nodule", left, top, right, bottom)


def _masks(root: Path) -> dict[str, dict[str, str]]:
    """Return the references to masks by image, for each structure."""
    masks = {
        structure: mask_files(root, f"**/{structure}", f"**/{structure.replace(' ', '_')}")
        for structure in _STRUCTURES
    }
    left, right = masks["left lung"], masks["right lung"]
    masks["lungs"] = {name: f"{left[name]}|{right[name]}" for name in left.keys() & right.keys()}
    return masks

"""Names, places and views of the images that the releases of CheXpert share."""

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cxrssl.data.releases.fields import view_positions
from cxrssl.data.releases.files import find_optional
from cxrssl.errors import InputError

__all__ = ["CHEXPERT_FINDINGS", "chexpert_names", "chexpert_paths", "chexpert_views"]

Column: TypeAlias = "pd.Series[Any]"

CHEXPERT_FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip

_NAME = (
    r"(?:^|/)(?P<part>train|valid|val|test)"
    r"/(?P<image>(?P<study_id>(?P<patient_id>patient\d+)/study\d+)/view\d+_[a-z]+)(?P<suffix>\.\w+)$"
)
_PARTS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
_BATCHES = (21_514, 43_018)
"""First patients of the second and the third part that the whole release has of the training
images; these are batches 3 and 4."""


def chexpert_names(paths: Column, file: str | os.PathLike[str]) -> pd.DataFrame:
    """Return part, image, study_id, patient_id and suffix (n, 5) of the images that paths lead to.

    ``CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`` is the image
    ``patient00001/study1/view1_frontal`` in all releases; what is before ``train`` differs.

    Args:
        paths: Paths (n,) of a table.
        file: The table, for the message.

    Raises:
        InputError: If a cell is no such path; it names the file, the row and the cell.
    """
    names = paths.str.strip().str.extract(_NAME)
    wrong = np.flatnonzero(names["image"].isna())
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{file}: {paths.iloc[row]!r} in row {row + 1} is no path of CheXpert, which are like "
            "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
        )
    return names.assign(part=names["part"].replace("val", "valid"))


def chexpert_paths(images: Path, names: pd.DataFrame) -> Column:
    """Return where images are (n,), relative to their folder: in the small or the whole release.

    Args:
        images: Folder of the images.
        names: What `chexpert_names` returns.
    """
    folder = names["part"].map({part: _folder(images, part) for part in _PARTS})
    batches = {number: find_optional(images, f"*batch {number}*") for number in (2, 3, 4)}
    if any(batches.values()):
        patient = names["patient_id"].str.removeprefix("patient").astype(int)
        batch = 2 + np.searchsorted(_BATCHES, patient.to_numpy(), side="right")
        places = {number: place.name for number, place in batches.items() if place is not None}
        unpacked = pd.Series(batch, index=names.index).map(places)
        folder = folder.mask((names["part"] == "train") & unpacked.notna(), unpacked)
    return folder + "/" + names["image"] + names["suffix"]


def _folder(images: Path, part: str) -> str:
    """Return the folder of a part, relative to that of the images; its name if there is none."""
    patterns = [top + name for top in ("", "[Cc]he[Xx]pert*/") for name in _PARTS[part]]
    found = find_optional(images, *patterns)
    return part if found is None else found.relative_to(images).as_posix()


def chexpert_views(sides: Column, projections: Column, file: str | os.PathLike[str]) -> Column:
    """Return the canonical views (n,).

    Args:
        sides: ``Frontal`` or ``Lateral`` (n,).
        projections: ``AP``, ``PA`` or nothing (n,); a frontal image that is ``LL`` or ``RL`` here
            is OTHER, not lateral.
        file: The table, for the message.

    Raises:
        InputError: If a side is neither; it names the file, the row and the value.
    """
    side = sides.str.strip().str.upper()
    wrong = np.flatnonzero(~side.isin(["FRONTAL", "LATERAL"]))
    if wrong.size:
        row = int(wrong[0])
        raise InputError(
            f"{file}: the view is {sides.iloc[row]!r} in row {row + 1}; it is Frontal or Lateral"
        )
    frontal = view_positions(projections).replace("LATERAL", "OTHER")
    return frontal.mask(side == "LATERAL", "LATERAL")

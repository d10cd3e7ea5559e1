"""PadChest."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.fields import sexes, view_positions
from cxrssl.data.releases.files import find_file, find_files, locate
from cxrssl.data.releases.padchest_labels import (
    PADCHEST_LABELS,
    PADCHEST_REMARKS,
    judged,
    label_lists,
)
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_lists, number, read_table

__all__ = ["PADCHEST_BAD_FILES", "PadChest"]

_BAD = (
    "12819207061112010307142602253_04-014-084", "12989926673512011074122523403_00-163-058",
    "12959786098432011033083840143_00-176-115", "12558082906712009327122220177_00-102-064",
    "12339356563862009072111404053_00-043-192", "13076187734852011291090445391_00-196-188",
    "12373310883942009117084022290_00-064-025", "12283393834152009033102258826_00-059-087",
    "12373310883942009170084120009_00-097-074", "12819207061112010315104455352_04-024-184",
    "12819207061112010306085429121_04-020-102", "12989926673512011083134050913_00-168-009",
    "12373310883942009152114636712_00-102-045", "12819207061112010281134410801_00-129-131",
    "12487858717522009280135853083_00-075-001", "12989926673512011151082430686_00-157-045",
    "13686042548532013208193054515_02-026-007", "13590140476722013058110301622_02-056-111",
    "13590140476722013043111952381_02-065-198", "13829543166512013353113303615_02-092-190",
    "13962490064942014134093945580_01-178-104",
)  # fmt: skip
PADCHEST_BAD_FILES = frozenset(f"2168401113669640{name}.png" for name in _BAD)
"""Images of the table that the archives lack (the first 11) or hold broken (10)."""

_FILE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_COLUMNS = ("ImageID", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
            "PatientSex_DICOM", "Projection", "Report", "MethodLabel", "Labels")  # fmt: skip
_MARKS = frozenset({"exclude", "suboptimal study"})
_ROWS = 160_861
_OLDEST = 120


class PadChest(Release):
    """PadChest (Bustos et al., Medical Image Analysis 2020): 160,861 radiographs, 188 labels.

    Reads the table of January 2019, compressed or not, and the images anywhere below the folder.
    Labels are compared whole, so that ``pseudonodule`` is no ``nodule``; those that the vocabulary
    lacks are left out with one warning. ``unchanged``, ``chronic changes``, ``exclude`` and
    ``suboptimal study`` are no labels; of an image without any other nothing is known. Reports are
    Spanish stems without accents. Ages are the year of the study less that of birth. See `Release`
    for the other arguments.

    Args:
        root: Folder of the release.
        physicians_only: Whether labels that a network read from the report are left out, for
            evaluation. The images stay.
        drop_suboptimal: Whether images that are marked ``exclude`` or ``suboptimal study`` are left
            out.
        skip_bad: Whether images of the table known to be missing or broken are left out.
        options: See `Release`.
    """

    title: ClassVar[str] = "PadChest"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "padchest"
    findings: ClassVar[tuple[str, ...]] = PADCHEST_LABELS
    counts: ClassVar[dict[str, int]] = {"images": _ROWS - len(_BAD)}
    traps: ClassVar[tuple[str, ...]] = (
        "identifiers of up to 39 digits",
        "folders of the archives or one",
        "labels as lists in a cell, some with a leading blank",
        "labels outside the vocabulary",
        "labels by physicians or by a network",
        "year of birth instead of age",
        "images that are missing or broken in the release",
    )

    def __init__(
        self,
        root: str,
        *,
        physicians_only: bool = False,
        drop_suboptimal: bool = False,
        skip_bad: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.physicians_only = physicians_only
        self.drop_suboptimal = drop_suboptimal
        self.skip_bad = skip_bad

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table."""
        file = find_file(root, _FILE, "PADCHEST_chest_x_ray_images_labels_*.csv*",
                         release=self.title)  # fmt: skip
        table = read_table(file, _COLUMNS)
        lists = label_lists(table["Labels"], (*PADCHEST_LABELS, *PADCHEST_REMARKS), file)
        names = table["ImageID"].str.strip()
        frame = pd.DataFrame(
            {
                "path": locate(names, find_files(Path(self.images_root))),
                "image": names,
                "patient_id": table["PatientID"].str.strip(),
                "study_id": table["StudyID"].str.strip(),
                "view_position": view_positions(table["Projection"]),
                "sex": sexes(table["PatientSex_DICOM"]),
                "age": _ages(table),
                "text": table["Report"].str.strip(),
            }
        )
        labels = labels_of_lists(judged(lists), self.findings)
        if self.physicians_only:
            physician = table["MethodLabel"].str.strip().str.lower() == "physician"
            labels[~physician.to_numpy()] = np.nan
        # So many columns, set one by one, would be as many blocks of memory.
        frame = pd.concat([frame, pd.DataFrame(labels, columns=list(self.findings))], axis=1)
        wanted = ~names.duplicated().to_numpy()
        if self.skip_bad:
            wanted &= ~names.isin(PADCHEST_BAD_FILES).to_numpy()
        if self.drop_suboptimal:
            wanted &= [_MARKS.isdisjoint(labels or ()) for labels in lists]
        return frame[wanted].reset_index(drop=True)


def _ages(table: pd.DataFrame) -> NDArray[np.float32]:
    years = number(table["StudyDate_DICOM"].str.strip().str[:4]) - number(table["PatientBirth"])
    plausible = (years >= 0) & (years <= _OLDEST)
    return np.where(plausible, years, np.nan).astype(np.float32)

"""Chest radiographs of the PLCO screening trial."""

from pathlib import Path
from typing import ClassVar

import pandas as pd

from cxrssl.data.releases.files import find_file, find_files, locate
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, read_table
from cxrssl.data.validate import SPLITS

__all__ = ["PLCO"]

_NAME = "image_file_name"
_PATIENT = "plco_id"


class PLCO(Release):
    """Chest radiographs of the PLCO trial, in the lists and sizes of CheXFound's release.

    Reads ``train.csv``, ``val.csv`` and ``test.csv``, as many of them as there are, and the images
    anywhere below the folder but in ``plco_512``: scans that lie on their side there are upright in
    ``plco_512rotate``. To read the former, give it as images. The labels are what became of the
    participant in the years after, not findings. Participants are known where the lists have the
    column ``plco_id``. See `Release` for the arguments.
    """

    title: ClassVar[str] = "PLCO"
    collection: ClassVar[str] = "plco"
    findings: ClassVar[tuple[str, ...]] = ("is_dead_cvd", "is_dead")
    counts: ClassVar[dict[str, int]] = {
        "images": 190_700,
        "train": 133_543,
        "val": 19_099,
        "test": 38_058,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "names without a suffix, some with dots",
        "scans that lie on their side",
        "outcomes instead of findings",
        "lists that may lack participants",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the lists."""
        find_file(root, "train.csv", "val.csv", "test.csv", release=self.title)
        found = find_files(Path(self.images_root), ignore=("plco_512",))
        lists = [(split, root / f"{split}.csv") for split in SPLITS]
        frames = [_read_list(file, split, found) for split, file in lists if file.is_file()]
        return pd.concat(frames, ignore_index=True)


def _read_list(file: Path, split: str, found: dict[str, str]) -> pd.DataFrame:
    table = read_table(file, (_NAME, *PLCO.findings))
    names = table[_NAME].str.strip()
    frame = pd.DataFrame(
        {
            "path": locate(names, found),
            "image": names,
            "patient_id": _participants(table),
            "view_position": "PA",
            "split": split,
        }
    )
    return pd.concat([frame, labels_of_columns(table, PLCO.findings, file)], axis=1)


def _participants(table: pd.DataFrame) -> "pd.Series[str]":
    """Return who was imaged, missing throughout where the list does not say."""
    if _PATIENT not in table:
        return pd.Series(pd.array([pd.NA] * len(table), dtype="string"))
    text = table[_PATIENT].str.strip().astype("string")
    return text.mask(text == "")

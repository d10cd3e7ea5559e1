"""NIH ChestX-ray14."""

from pathlib import Path
from typing import ClassVar

import pandas as pd

from cxrssl.data.releases.boxes import Box, boxes_by_image
from cxrssl.data.releases.fields import ages, sexes, view_positions
from cxrssl.data.releases.files import find_file, find_files, locate, read_names, warn_of_split
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_lists, read_table
from cxrssl.errors import InputError

__all__ = ["NIH_FINDINGS", "NIHChestXray14"]

NIH_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia", "No Finding",
)  # fmt: skip
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender",
            "View Position")  # fmt: skip
_BOXES = ("image", "finding", "x", "y", "width", "height")


class NIHChestXray14(Release):
    """NIH ChestX-ray14 (Wang et al., CVPR 2017): 112,120 frontal radiographs, 14 findings.

    Reads ``Data_Entry_2017_v2020.csv`` or the table of 2017, the images anywhere below the folder,
    ``train_val_list.txt`` and ``test_list.txt`` where they are, and ``BBox_List_2017.csv``. Without
    the lists, patients are split as `split` says. See `Release` for the arguments.
    """

    title: ClassVar[str] = "NIH ChestX-ray14"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "nih"
    findings: ClassVar[tuple[str, ...]] = NIH_FINDINGS
    counts: ClassVar[dict[str, int]] = {
        "images": 112_120,
        "patients": 30_805,
        "test": 25_596,
        "boxes": 984,
        "images with boxes": 880,
        "Hernia": 227,
        "No Finding": 60_361,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "column names with commas",
        "folders of the twelve archives or one",
        "RGBA files",
        "ages such as 058Y and 414",
        "`Infiltrate` in the boxes",
        "lists with or without a last line end",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table."""
        file = find_file(root, "Data_Entry_2017_v2020.csv", "Data_Entry_2017*.csv",
                         release=self.title)  # fmt: skip
        # Names with commas that are not quoted are columns of their own; an empty one ends rows.
        table = read_table(file, _COLUMNS, index_col=False)
        names = table["Image Index"]
        lists = [text.split("|") for text in table["Finding Labels"]]
        _refuse_unknown(lists, file)
        frame = pd.DataFrame(
            {
                "path": locate(names, find_files(Path(self.images_root))),
                "image": names,
                "patient_id": table["Patient ID"].str.lstrip("0"),
                "view_position": view_positions(table["View Position"]),
                "sex": sexes(table["Patient Gender"]),
                "age": ages(table["Patient Age"]),
                "split": _splits(root, names),
                "boxes": boxes_by_image(_boxes(root), names),
            }
        )
        frame[list(self.findings)] = labels_of_lists(lists, self.findings)
        return frame


def _splits(root: Path, names: "pd.Series[str]") -> "pd.Series[str]":
    """Return the official split; one list tells the other, without any it is missing throughout."""
    lists = {"train": "train_val_list.txt", "test": "test_list.txt"}
    there = {split: root / file for split, file in lists.items() if (root / file).is_file()}
    split = pd.Series(pd.array([pd.NA] * len(names), dtype="string"))
    if not there:
        warn_of_split(root, *lists.values())
    elif len(there) == 1:
        split[:] = "test" if "train" in there else "train"
    for name, file in there.items():
        split[names.isin(read_names(file)).to_numpy()] = name
    return split


def _boxes(root: Path) -> dict[str, list[Box]]:
    file = root / "BBox_List_2017.csv"
    if not file.is_file():
        return {}
    # The header has more names than rows have cells: read by place.
    table = read_table(file, header=0, names=_BOXES, usecols=range(len(_BOXES)), index_col=False)
    boxes: dict[str, list[Box]] = {}
    for row in table.itertuples():
        x, y, width, height = (float(str(row[place])) for place in (3, 4, 5, 6))
        finding = "Infiltration" if row[2] == "Infiltrate" else str(row[2])
        boxes.setdefault(str(row[1]), []).append(Box(finding, x, y, x + width, y + height))
    return boxes


def _refuse_unknown(lists: list[list[str]], file: Path) -> None:
    for row, names in enumerate(lists):
        if unknown := set(names) - set(NIH_FINDINGS):
            raise InputError(
                f"{file}: {sorted(unknown)[0]!r} in row {row + 1} is no finding of ChestX-ray14 "
                f"({', '.join(NIH_FINDINGS)})"
            )

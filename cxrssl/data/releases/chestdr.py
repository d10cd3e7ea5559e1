"""ChestDR of MedFMC."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.files import find_files, find_optional, locate, read_names
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, read_table
from cxrssl.errors import InputError

__all__ = ["CHESTDR_FINDINGS", "ChestDR"]

CHESTDR_FINDINGS = (
    "pleural_effusion", "nodule", "pneumonia", "cardiomegaly", "hilar_enlargement", "fracture_old",
    "fibrosis", "aortic_calcification", "tortuous_aorta", "thickened_pleura", "TB", "pneumothorax",
    "emphysema", "atelectasis", "calcification", "pulmonary_edema", "increased_lung_markings",
    "elevated_diaphragm", "consolidation",
)  # fmt: skip
"""Findings in the order of the numbers in the lists."""

_OTHER_ORGANS = ("colon", "endo")
_TEST = ("test_withlabel.txt", "test_withoutlabel.txt", "test.txt")

Labels = NDArray[np.float32]


class ChestDR(Release):
    """ChestDR of MedFMC (2023): 4,848 frontal radiographs, 19 findings, few-shot experiments.

    Reads the lists of the challenge, ``train_20.txt`` and ``val_20.txt``, or ``trainval.txt`` where
    these are not there, with ``test_WithLabel.txt`` and ``test_WithoutLabel.txt``, or ``test.txt``.
    Images whose list has no labels get those of ``chestdr_published_19d.csv``, or none. Without any
    list, all images of that table are split as `split` says. Patients are not known. An image in
    two lists belongs to the first. Folders of the challenge's other organs are passed over.

    Args:
        root: Folder of the release.
        shots: Train and validate on the images of a few-shot experiment, this many of each finding,
            instead of all.
        experiment: Number of that experiment, from 1 to 5.
        options: See `Release`.
    """

    title: ClassVar[str] = "ChestDR"
    collection: ClassVar[str] = "chestdr"
    findings: ClassVar[tuple[str, ...]] = CHESTDR_FINDINGS
    counts: ClassVar[dict[str, int]] = {"images": 4_848, "train": 783, "val": 196, "test": 3_869}
    traps: ClassVar[tuple[str, ...]] = (
        "labels by place, without a header",
        "lists without labels",
        "images of other organs with the same lists",
        "copies as .jpg under names with .png",
        "no patients",
    )

    def __init__(
        self,
        root: str,
        *,
        shots: Literal[1, 5, 10] | None = None,
        experiment: Literal[1, 2, 3, 4, 5] = 1,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.shots = shots
        self.experiment = experiment

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the lists, or of the table."""
        published = _published(root)
        labels: dict[str, Labels] = {}
        splits: dict[str, str] = {}
        for split, file in self._lists(root):
            for name, listed in _read_list(file).items():
                if name not in splits:
                    splits[name] = split
                    labels[name] = published.get(name, _unlabelled()) if listed is None else listed
        if not splits:
            labels = published
        if not labels:
            raise InputError(
                f"{root} is no release of {self.title}: it has neither lists such as trainval.txt "
                "nor chestdr_published_19d.csv; give the folder that holds these as root"
            )
        found = find_files(Path(self.images_root), ignore=_OTHER_ORGANS)
        names = list(labels)
        frame = pd.DataFrame({"path": locate((f"{name}.png" for name in names), found)})
        frame["image"] = names
        if splits:
            frame["split"] = [splits[name] for name in names]
        frame[list(self.findings)] = np.stack(list(labels.values()))
        return frame

    def _lists(self, root: Path) -> list[tuple[str, Path]]:
        """Return the lists to read, each with its split."""
        paths = find_files(root, (".txt",), ignore=_OTHER_ORGANS)
        found = {name.lower(): root / path for name, path in paths.items()}
        chosen = {"train": "train_20.txt", "val": "val_20.txt"}
        if self.shots is not None:
            chosen = {
                split: f"chest_{self.shots}-shot_{split}_exp{self.experiment}.txt"
                for split in chosen
            }
            if missing := [name for name in chosen.values() if name not in found]:
                raise InputError(
                    f"{root} has no {' and no '.join(missing)}: give a folder that holds these "
                    "lists, or choose other shots or another experiment"
                )
        elif not all(name in found for name in chosen.values()):
            chosen = {"train": "trainval.txt"}
        lists = [(split, found[name]) for split, name in chosen.items() if name in found]
        return lists + [("test", found[name]) for name in _TEST if name in found]


def _read_list(file: Path) -> dict[str, Labels | None]:
    """Return the labels (19,) of each image of a list by its name, None where it has none."""
    labels: dict[str, Labels | None] = {}
    for row, line in enumerate(read_names(file)):
        name, *rest = line.rsplit(maxsplit=1)
        labels[Path(name).stem] = _bits(rest[0], file, row) if rest else None
    return labels


def _bits(text: str, file: Path, row: int) -> Labels:
    bits = text.split(",")
    if len(bits) != len(CHESTDR_FINDINGS) or not set(bits) <= {"0", "1"}:
        raise InputError(
            f"{file}: row {row + 1} has the labels {text!r}; {len(CHESTDR_FINDINGS)} numbers 0 or "
            "1, separated by commas, are expected: is it the list of another organ?"
        )
    return np.array(bits, dtype=np.float32)


def _published(root: Path) -> dict[str, Labels]:
    """Return the labels (19,) of the published table by the names of images."""
    file = find_optional(root, "**/chestdr_published_19d.csv")
    if file is None:
        return {}
    table = read_table(file, ("img_id", *CHESTDR_FINDINGS))
    labels = labels_of_columns(table, CHESTDR_FINDINGS, file).to_numpy(dtype=np.float32)
    names = (Path(name.strip()).stem for name in table["img_id"])
    return dict(zip(names, labels, strict=True))


def _unlabelled() -> Labels:
    return np.full(len(CHESTDR_FINDINGS), np.nan, dtype=np.float32)

"""CXR-LT 2023 and 2024: long-tailed labels of the images of MIMIC-CXR-JPG."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from cxrssl.data.releases.files import find_optional
from cxrssl.data.releases.mimic_tables import MIMIC_IDS, mimic_paths, mimic_views
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, read_table
from cxrssl.errors import InputError

__all__ = ["CXRLT2023", "CXRLT2024"]

_FINDINGS_2023 = (
    "Atelectasis", "Calcification of the Aorta", "Cardiomegaly", "Consolidation", "Edema",
    "Emphysema", "Enlarged Cardiomediastinum", "Fibrosis", "Fracture", "Hernia", "Infiltration",
    "Lung Lesion", "Lung Opacity", "Mass", "No Finding", "Nodule", "Pleural Effusion",
    "Pleural Other", "Pleural Thickening", "Pneumomediastinum", "Pneumonia", "Pneumoperitoneum",
    "Pneumothorax", "Subcutaneous Emphysema", "Support Devices", "Tortuous Aorta",
)  # fmt: skip
_FINDINGS_2024 = (
    "Adenopathy", "Atelectasis", "Azygos Lobe", "Calcification of the Aorta", "Cardiomegaly",
    "Clavicle Fracture", "Consolidation", "Edema", "Emphysema", "Enlarged Cardiomediastinum",
    "Fibrosis", "Fissure", "Fracture", "Granuloma", "Hernia", "Hydropneumothorax", "Infarction",
    "Infiltration", "Kyphosis", "Lobar Atelectasis", "Lung Lesion", "Lung Opacity", "Mass",
    "Nodule", "Normal", "Pleural Effusion", "Pleural Other", "Pleural Thickening",
    "Pneumomediastinum", "Pneumonia", "Pneumoperitoneum", "Pneumothorax", "Pulmonary Embolism",
    "Pulmonary Hypertension", "Rib Fracture", "Round(ed) Atelectasis", "Subcutaneous Emphysema",
    "Support Devices", "Tortuous Aorta", "Tuberculosis",
)  # fmt: skip
_GOLD_2024 = tuple(
    name
    for finding in _FINDINGS_2023
    if finding != "No Finding"
    for name in ((finding, "Normal") if finding == "Mass" else (finding,))
)
_UNSEEN_2024 = ("Bulla", "Cardiomyopathy", "Hilum", "Osteopenia", "Scoliosis")
_TASKS = {1: _FINDINGS_2024, 2: _GOLD_2024, 3: _UNSEEN_2024}


class _CXRLT(Release):
    """What both years share: tables of labels, with the images of MIMIC-CXR-JPG in a folder."""

    collection: ClassVar[str] = "mimic"

    @abstractmethod
    def _tables(self) -> Mapping[str, tuple[str, ...]]:
        """Return the names, the first first, that the table of a split may have."""

    @property
    @abstractmethod
    def _folder(self) -> str:
        """Folder of the year in the release of both."""

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the tables that are there."""
        tables = {
            split: find_optional(root, *names, *(f"{self._folder}/{name}" for name in names))
            for split, names in self._tables().items()
        }
        parts = [self._read(file, split) for split, file in tables.items() if file is not None]
        if not parts:
            wanted = ", ".join(names[0] for names in self._tables().values())
            raise InputError(
                f"{root} is no release of {self.title}: it has none of {wanted}; give the folder "
                "that holds them as root, and that of the images of MIMIC-CXR-JPG as images"
            )
        return pd.concat(parts, ignore_index=True)

    def _read(self, file: Path, split: str) -> pd.DataFrame:
        table = read_table(file, MIMIC_IDS)
        frame = pd.DataFrame(
            {
                "path": mimic_paths(Path(self.images_root), table),
                "image": table["dicom_id"],
                "patient_id": table["subject_id"],
                "study_id": table["study_id"],
                "view_position": mimic_views(table),
                "split": split,
            }
        )
        frame[list(self.findings)] = self._labels(table, file)
        return frame

    def _labels(self, table: pd.DataFrame, file: Path) -> pd.DataFrame | float:
        """Return the labels (n, F) of a table, NaN if it is one without any."""
        lacking = [name for name in self.findings if name not in table]
        if len(lacking) == len(self.findings):
            return np.nan
        if lacking:
            raise InputError(
                f"{file} has no column {', '.join(map(repr, lacking))}; it has "
                f"{', '.join(map(repr, table.columns))}: is it the table of another year or task?"
            )
        return labels_of_columns(table, self.findings, file)


class CXRLT2023(_CXRLT):
    """CXR-LT 2023 (Holste et al.): 26 findings of 377,110 images of MIMIC-CXR-JPG.

    Reads ``train.csv``, ``development.csv`` (validation) and ``test.csv``, of these what is there.
    `images` is the folder of MIMIC-CXR-JPG or of resized copies. Its split is not that of
    MIMIC-CXR. See `Release` for the arguments.
    """

    title: ClassVar[str] = "CXR-LT 2023"
    findings: ClassVar[tuple[str, ...]] = _FINDINGS_2023
    counts: ClassVar[dict[str, int]] = {
        "images": 377_110,
        "train": 264_849,
        "val": 36_769,
        "test": 75_492,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "images of another release",
        "a split that crosses that of MIMIC-CXR",
        "tables without labels",
    )

    def _tables(self) -> Mapping[str, tuple[str, ...]]:
        return {"train": ("train.csv",), "val": ("development.csv",), "test": ("test.csv",)}

    @property
    def _folder(self) -> str:
        return "cxr-lt-2023"


class CXRLT2024(_CXRLT):
    """CXR-LT 2024 (Holste et al.): 40 findings of 377,110 images of MIMIC-CXR-JPG, and 5 unseen.

    Reads ``train_labeled.csv``, and the labelled development (validation) and test tables of the
    task, of these what is there. `images` is the folder of MIMIC-CXR-JPG or of resized copies. Its
    split is neither that of 2023 nor that of MIMIC-CXR. See `Release` for the other arguments.

    Args:
        root: Folder of the tables.
        task: 1, 40 findings; 2, 26 of them, by hand in the test set; 3, five that training images
            have no labels of.
        options: See `Release`.
    """

    title: ClassVar[str] = "CXR-LT 2024"
    findings: ClassVar[tuple[str, ...]] = _FINDINGS_2024
    counts: ClassVar[dict[str, int]] = {
        "images": 377_110,
        "train": 258_871,
        "val": 39_293,
        "test": 78_946,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "images of another release",
        "a split that crosses those of 2023 and MIMIC-CXR",
        "`Round(ed) Atelectasis`",
        "`Normal`, not `No Finding`",
    )

    def __init__(self, root: str, *, task: Literal[1, 2, 3] = 1, **options: Any) -> None:
        super().__init__(root, **options)
        if task not in _TASKS:
            raise InputError(f"task must be 1, 2 or 3, got {task!r}")
        self.task = task
        # Of an instance: the tasks have different findings.
        self.findings = _TASKS[task]  # type: ignore[misc]

    def _tables(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "train": ("train_labeled.csv",),
            "val": (f"development_labeled_task{self.task}.csv", "development.csv"),
            "test": (f"test_labeled_task{self.task}.csv",),
        }

    @property
    def _folder(self) -> str:
        return "cxr-lt-2024"

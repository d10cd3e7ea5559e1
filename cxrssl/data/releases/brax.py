"""BRAX."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from cxrssl.data.releases.fields import ages, sexes, view_positions
from cxrssl.data.releases.files import find_file
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, read_table
from cxrssl.errors import InputError

__all__ = ["BRAX", "BRAX_FINDINGS"]

BRAX_FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
_COLUMNS = ("PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition")
_PATHS = {"png": "PngPath", "dicom": "DicomPath"}


class BRAX(Release):
    """BRAX (Reis et al., Scientific Data 2022): 40,967 radiographs with CheXpert's 14 labels.

    Reads ``master_spreadsheet_update.csv`` of release 1.1.0, or else ``master_spreadsheet.csv`` of
    1.0.0, whose paths start from the folder of the release. Ages are the lower end of groups of
    five years, 85 for the oldest. See `Release` for the other arguments.

    Args:
        root: Folder of the release.
        files: Whether to read the ``png`` or the ``dicom`` files. Images are named after the former
            in both cases.
        options: See `Release`.

    Raises:
        InputError: If ``files`` is neither.
    """

    title: ClassVar[str] = "BRAX"
    collection: ClassVar[str] = "brax"
    findings: ClassVar[tuple[str, ...]] = BRAX_FINDINGS
    counts: ClassVar[dict[str, int]] = {"images": 40_967, "studies": 24_959, "patients": 19_351}
    traps: ClassVar[tuple[str, ...]] = (
        "tables of two releases",
        "first column without a name",
        "`Lung Lesion` before `Lung Opacity`",
        "ages in groups, one of them `85 or more`",
        "accession numbers that only name a study with the patient",
        "DICOM files without a suffix in 1.0.0",
    )

    def __init__(
        self, root: str, *, files: Literal["png", "dicom"] = "png", **options: Any
    ) -> None:
        super().__init__(root, **options)
        if files not in _PATHS:
            raise InputError(f"files must be one of {', '.join(_PATHS)}, got {files!r}")
        self.files = files

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table."""
        file = find_file(root, "master_spreadsheet_update.csv", "master_spreadsheet*.csv",
                         release=self.title)  # fmt: skip
        path = _PATHS[self.files]
        table = read_table(file, (path, *_COLUMNS, *self.findings))
        patients = table["PatientID"].str.strip()
        frame = pd.DataFrame(
            {
                "path": table[path].str.strip(),
                "image": table["PngPath"].str.strip().str.removeprefix("images/"),
                "patient_id": patients,
                "study_id": patients + "/" + table["AccessionNumber"].str.strip(),
                "view_position": view_positions(table["ViewPosition"]),
                "sex": sexes(table["PatientSex"]),
                "age": ages(table["PatientAge"]),
            }
        )
        labels = labels_of_columns(table, self.findings, file)
        return pd.concat([frame, labels], axis=1)

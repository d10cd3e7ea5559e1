"""MIMIC-CXR, as DICOM files and as JPEG files."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.fields import sexes
from cxrssl.data.releases.files import find_file, find_optional, warn_of_split
from cxrssl.data.releases.mimic_reports import mimic_reports
from cxrssl.data.releases.mimic_tables import (
    METADATA,
    MIMIC_FINDINGS,
    MIMIC_IDS,
    MIMIC_SKIPPED,
    RECORDS,
    mimic_paths,
    mimic_splits,
    mimic_views,
)
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, number, read_table
from cxrssl.errors import InputError

__all__ = ["MIMICCXR", "MIMICCXRJPG"]

_RADIOLOGISTS = {"Airspace Opacity": "Lung Opacity", "No Findings": "No Finding"}
"""Spellings of the table of the test set to those of all others."""


class MIMICCXR(Release):
    """MIMIC-CXR (Johnson et al., 2019): 377,110 radiographs as DICOM, 14 findings, reports.

    Reads ``cxr-record-list.csv.gz`` and the images below ``files``. What is known of them besides
    their names, the views, labels and splits, is in the tables of MIMIC-CXR-JPG; without those,
    labels are missing and patients are split as `split` says. Labels are those of a study, given to
    each of its images; uncertain ones are -1. See `Release` for the other arguments.

    Args:
        root: Folder of the release.
        tables: Folder of the tables of MIMIC-CXR-JPG, where it is not the root.
        labeller: Labeller of the reports whose labels are taken.
        test_labels: Whose labels the images of the test set have: the labeller's, or those of
            radiologists, which version 2.1.0 has for some of its studies; of others in the test
            set no label is known then.
        reports: Folder that ``mimic-cxr-reports.zip`` unpacks to, or a table with the columns
            ``study`` and ``findings``. The findings become the column `text`; without it there is
            none.
        patients: Table ``patients`` of MIMIC-IV, for sex and for age at the study.
        skip_listed: Leave out the 23 images that CheXWorld leaves out.
        options: See `Release`.
    """

    title: ClassVar[str] = "MIMIC-CXR"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "mimic"
    findings: ClassVar[tuple[str, ...]] = MIMIC_FINDINGS
    counts: ClassVar[dict[str, int]] = {
        "images": 377_110,
        "patients": 65_379,
        "studies": 227_835,
        "train": 368_960,
        "val": 2_991,
        "test": 5_159,
        "train patients": 64_586,
        "val patients": 500,
        "test patients": 293,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "labels of studies, not of images",
        "studies without labels",
        "blank views that the view's code knows",
        "`validate`",
        "`Airspace Opacity` in the radiologists' labels",
        "`files_512` and the like in resized copies",
    )

    def __init__(
        self,
        root: str,
        *,
        tables: str | None = None,
        labeller: Literal["chexpert", "negbio"] = "chexpert",
        test_labels: Literal["labeller", "radiologists"] = "labeller",
        reports: str | None = None,
        patients: str | None = None,
        skip_listed: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.tables = Path(tables or root)
        self.labeller = labeller
        self.test_labels = test_labels
        self.reports = reports
        self.patients = patients
        self.skip_listed = skip_listed

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the release's table."""
        table = self._read_images(root)
        if self.skip_listed:
            table = table[~table["dicom_id"].isin(MIMIC_SKIPPED)].reset_index(drop=True)
        frame = pd.DataFrame(
            {
                "path": self._paths(table),
                "image": table["dicom_id"],
                "patient_id": table["subject_id"],
                "study_id": table["study_id"],
                "view_position": mimic_views(table),
            }
        )
        split = mimic_splits(self.tables, table["dicom_id"])
        if split is None:
            warn_of_split(self.tables, "mimic-cxr-2.0.0-split.csv.gz")
        else:
            frame["split"] = split
        if self.patients is not None:
            frame = frame.assign(**_demographics(Path(self.patients), table))
        if self.reports is not None:
            ids = table["subject_id"], table["study_id"]
            frame["text"] = mimic_reports(Path(self.reports), *ids)
        frame[list(self.findings)] = self._labels(table["study_id"], split)
        return frame

    # Where DICOM and JPEG differ.

    def _read_images(self, root: Path) -> pd.DataFrame:
        """Return a row per image with its identifiers, and what the metadata says of it."""
        records = read_table(find_file(root, RECORDS, release=self.title), MIMIC_IDS)
        metadata = find_optional(self.tables, METADATA)
        if metadata is None:
            return records
        known = read_table(metadata, MIMIC_IDS).drop_duplicates("dicom_id").set_index("dicom_id")
        known = known.drop(columns=["subject_id", "study_id"])
        return records.join(known, on="dicom_id")

    def _paths(self, table: pd.DataFrame) -> list[str]:
        return mimic_paths(Path(self.images_root), table, ".dcm")

    # What both share.

    def _labels(
        self, studies: "pd.Series[str]", split: "pd.Series[str] | None"
    ) -> NDArray[np.float32]:
        """Return the labels (n, F) of the studies that images belong to."""
        labels = np.full((len(studies), len(self.findings)), np.nan, dtype=np.float32)
        file = find_optional(self.tables, f"mimic-cxr-*-{self.labeller}.csv*")
        if file is not None:
            labels = self._labels_of_studies(file, studies)
        if self.test_labels == "radiologists":
            file = find_file(self.tables, "mimic-cxr-*-test-set-labeled.csv*", release=self.title)
            read = self._labels_of_studies(file, studies)
            tested = np.asarray(~np.isnan(read).all(axis=1))
            if split is not None:
                tested |= (split == "test").to_numpy(dtype=np.bool_, na_value=False)
            labels = np.where(tested[:, None], read, labels)
        return labels

    def _labels_of_studies(self, file: Path, studies: "pd.Series[str]") -> NDArray[np.float32]:
        table = read_table(file, ("study_id",)).rename(columns=_RADIOLOGISTS)
        if lacking := [name for name in self.findings if name not in table]:
            raise InputError(
                f"{file} has no column {', '.join(map(repr, lacking))}; it has "
                f"{', '.join(map(repr, table.columns))}: is it a table of labels?"
            )
        labels = labels_of_columns(table, self.findings, file).set_index(table["study_id"])
        rows = labels[~labels.index.duplicated()].reindex(studies)
        return rows.to_numpy(dtype=np.float32)


class MIMICCXRJPG(MIMICCXR):
    """MIMIC-CXR-JPG (Johnson et al., 2019): 377,110 radiographs as JPEG, 14 findings.

    Reads ``mimic-cxr-2.0.0-metadata.csv.gz``, the table of the split and that of the labels, and
    the images below ``files``. The JPEG files are equalised: their grey levels are not those of the
    DICOM files. Labels are those of a study, given to each of its images; uncertain ones are -1.
    See `MIMICCXR` and `Release` for the arguments.
    """

    title: ClassVar[str] = "MIMIC-CXR-JPG"
    also: ClassVar[tuple[str, ...]] = ("reports",)

    def _read_images(self, root: Path) -> pd.DataFrame:
        return read_table(find_file(self.tables, METADATA, release=self.title), MIMIC_IDS)

    def _paths(self, table: pd.DataFrame) -> list[str]:
        return mimic_paths(Path(self.images_root), table)


def _demographics(file: Path, table: pd.DataFrame) -> dict[str, Any]:
    """Return sex and age (n,) at the study, whose year is shifted as that of the anchor is."""
    columns = ("subject_id", "gender", "anchor_age", "anchor_year")
    known = read_table(file, columns).drop_duplicates("subject_id").set_index("subject_id")
    known = known.reindex(table["subject_id"]).fillna("").reset_index(drop=True)
    found: dict[str, Any] = {"sex": sexes(known["gender"])}
    if "StudyDate" in table:
        year = number(table["StudyDate"].fillna("").str.strip().str[:4])
        found["age"] = number(known["anchor_age"]) + year - number(known["anchor_year"])
    return found

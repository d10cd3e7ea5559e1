"""BIMCV-COVID19+ and its negative counterpart."""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.fields import sexes, view_positions
from cxrssl.data.releases.files import find_file, find_files
from cxrssl.data.releases.padchest_labels import (
    PADCHEST_LABELS,
    PADCHEST_REMARKS,
    judged,
    label_lists,
)
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_lists, read_table
from cxrssl.errors import InputError

__all__ = ["BIMCVCOVID19"]

_COVID = "COVID 19"
_UNCERTAIN = "COVID 19 uncertain"
_TEST = "COVID-19 test"
_REPORTED = (*PADCHEST_LABELS, _COVID)
_NAME = r"^sub-(?P<patient>[^_]+)_ses-(?P<session>[^_]+)_(?:.*_)?(?:cr|dx)\.[^.]+$"
_VIEW = r"_vp-(?P<view>[^_]+)"
_OLDEST = 120


class BIMCVCOVID19(Release):
    """BIMCV-COVID19+ (de la Iglesia Vayá et al., 2020) and its negative counterpart.

    Reads the radiographs below the folder, whose names say the patient, the session and the view;
    ``participants.tsv``; and where they are, the labels of the reports and the tests. The folder is
    that of one collection or holds several. Reports are labelled with PadChest's vocabulary,
    ``COVID 19`` is the report's impression and uncertain where that says so. ``COVID-19 test`` is
    what the tests near the study said: positive patients have studies before and after as well.
    Ages are the mean of the patient's, who may have several. See `Release` for the other arguments.

    Args:
        root: Folder of the release.
        window: Most days between a study and a test that speaks of it.
        options: See `Release`.

    Raises:
        InputError: If the window is negative.
    """

    title: ClassVar[str] = "BIMCV-COVID19"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "bimcv"
    findings: ClassVar[tuple[str, ...]] = (*_REPORTED, _TEST)
    traps: ClassVar[tuple[str, ...]] = (
        "no table of images",
        "views in file names",
        "ages as lists",
        "labels as lists in a cell, some cut off",
        "labels of sessions",
        "tests on other days than the study",
        "tables whose names vary",
        "CT volumes beside the radiographs",
    )

    def __init__(self, root: str, *, window: int = 14, **options: Any) -> None:
        super().__init__(root, **options)
        if window < 0:
            raise InputError(f"window must be at least 0 days, got {window}")
        self.window = window

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per radiograph below the folder."""
        find_file(root, "participants.tsv", "*/participants.tsv", release=self.title)
        images = _radiographs(self.images_root)
        names = images["image"]
        frame = pd.DataFrame(
            {
                "path": images["path"],
                "image": names,
                "patient_id": images["patient"],
                "study_id": images["session"],
                "view_position": view_positions(names.str.extract(_VIEW)["view"].fillna("")),
            }
        )
        frame = frame.join(_people(root), on="patient_id")
        reports = _reports(root).reindex(images["session"]).reset_index(drop=True)
        tests = pd.Series(_tested(root, images, self.window), name=_TEST)
        return pd.concat([frame, reports, tests], axis=1)


def _radiographs(folder: str) -> pd.DataFrame:
    """Return path, name, patient and session of each radiograph below a folder."""
    found = find_files(Path(folder), ignore=("derivatives",))
    images = pd.DataFrame({"image": list(found), "path": list(found.values())}, dtype="string")
    images = images.join(images["image"].str.extract(_NAME)).dropna(ignore_index=True)
    if images.empty:
        raise InputError(
            f"{folder} has no image named as sub-S1_ses-E1_..._cr.png: unpack the images, or give "
            "their folder as images"
        )
    return images


def _table(root: Path, pattern: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """Return the columns of all tables that a pattern matches; none is an empty table."""
    files = sorted([*root.glob(pattern), *root.glob(f"*/{pattern}")])
    tables = [read_table(file, columns)[list(columns)] for file in files]
    return pd.concat([pd.DataFrame(columns=list(columns), dtype=str), *tables], ignore_index=True)


def _people(root: Path) -> pd.DataFrame:
    """Return sex and age by patient."""
    table = _table(root, "participants.tsv", ("participant", "age", "gender"))
    people = pd.DataFrame({"sex": sexes(table["gender"]), "age": table["age"].map(_mean_age)})
    people.index = pd.Index(_bare(table["participant"]))
    return people[~people.index.duplicated()]


def _mean_age(text: str) -> float:
    ages = [float(age) for age in re.findall(r"\d+(?:\.\d+)?", text)]
    return float(np.mean(ages)) if ages and max(ages) <= _OLDEST else np.nan


def _reports(root: Path) -> pd.DataFrame:
    """Return text and labels by session."""
    table = _table(root, "derivatives/labels/[lL]abels_*.tsv", ("ReportID", "Report", "Labels"))
    known = (*_REPORTED, _UNCERTAIN, *PADCHEST_REMARKS)
    lists = label_lists(table["Labels"], known, root / "derivatives/labels", refuse=False)
    labels = pd.DataFrame(labels_of_lists(judged(lists), _REPORTED), columns=list(_REPORTED))
    uncertain = np.array([_UNCERTAIN in (names or ()) for names in lists], dtype=np.bool_)
    labels.loc[uncertain & (labels[_COVID] != 1).to_numpy(), _COVID] = -1
    reports = pd.concat([table["Report"].str.strip().rename("text"), labels], axis=1)
    reports.index = pd.Index(_bare(table["ReportID"]))
    return reports[~reports.index.duplicated()]


def _tested(root: Path, images: pd.DataFrame, window: int) -> NDArray[np.float32]:
    """Return what the tests near each study said (n,); a positive one counts first."""
    labels = np.full(len(images), np.nan, dtype=np.float32)
    table = _table(root, "derivatives/EHR/sil_reg_covid*.tsv", ("participant", "date", "result"))
    tests = pd.DataFrame(
        {
            "patient": _bare(table["participant"]),
            "date": pd.to_datetime(table["date"].str.strip(), format="%d.%m.%Y", errors="coerce"),
            "result": table["result"].str.strip().str.upper(),
        }
    )
    studies = images[["patient", "session"]].reset_index(names="row")
    studies = studies.join(_study_dates(root, set(tests["patient"])), on="session")
    pairs = studies.merge(tests, on="patient")
    near = pairs[(pairs["study_date"] - pairs["date"]).abs() <= pd.Timedelta(days=window)]
    for result, label in (("NEGATIVO", 0), ("POSITIVO", 1)):
        labels[near.loc[near["result"] == result, "row"].to_numpy()] = label
    return labels


def _study_dates(root: Path, patients: set[str]) -> "pd.Series[Any]":
    """Return the date of each session of the patients; each has a table of their own."""
    suffix = "_sessions.tsv"
    columns = ("session_id", "study_date")
    tables = [
        read_table(root / path, columns)[list(columns)]
        for name, path in find_files(root, (suffix,)).items()
        if name.removeprefix("sub-").removesuffix(suffix) in patients
    ]
    table = pd.concat([pd.DataFrame(columns=list(columns), dtype=str), *tables], ignore_index=True)
    days = table["study_date"].str.replace("-", "").str.strip().str[:8]
    dates = pd.to_datetime(days, format="%Y%m%d", errors="coerce")
    dates.index = pd.Index(_bare(table["session_id"]))
    return dates[~dates.index.duplicated()]


def _bare(names: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return identifiers without what says of what they are."""
    return names.str.strip().str.replace(r"^(?:sub|ses)-", "", regex=True).astype("string")

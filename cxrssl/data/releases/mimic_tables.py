"""Where the images of MIMIC-CXR are, and the tables that all releases on them join with."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cxrssl.data.releases.fields import official_splits, view_positions
from cxrssl.data.releases.files import find_files, find_optional, locate
from cxrssl.data.releases.tables import read_table

__all__ = [
    "METADATA",
    "MIMIC_FINDINGS",
    "MIMIC_IDS",
    "MIMIC_SKIPPED",
    "RECORDS",
    "SPLIT",
    "mimic_images",
    "mimic_paths",
    "mimic_splits",
    "mimic_table",
    "mimic_views",
]

Column: TypeAlias = "pd.Series[Any]"

MIMIC_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip

MIMIC_IDS = ("dicom_id", "subject_id", "study_id")

METADATA, SPLIT, RECORDS = (
    f"{name}.csv*" for name in ("mimic-cxr-*-metadata", "mimic-cxr-*-split", "cxr-record-list")
)
"""Patterns of the tables that have `MIMIC_IDS`, compressed or not and of any version."""

MIMIC_SKIPPED = frozenset(
    [
        "03b2e67c-70631ff8-685825fb-6c989456-621ca64d",
        "0518c887-b80608ca-830de2d5-89acf0e2-bd3ec900",
        "14a5423b-9989fc33-123ce6f1-4cc7ca9a-9a3d2179",
        "1d0bafd0-72c92e4c-addb1c57-40008638-b9ec8584",
        "2b5edbbf-116df0e3-d0fea755-fabd7b85-cbb19d84",
        "422689b1-40e06ae8-d6151ff3-2780c186-6bd67271",
        "46b02f13-69fb7e49-321880e4-80584065-c1f57b50",
        "56b8afd3-5f6d4419-8699d79e-6913a2bd-35a08557",
        "6d54a492-7aade003-a238dc5c-019ccdd2-05661649",
        "786d69d0-08d16a2c-dd260165-682e66e9-acf7e942",
        "810a8e3b-2cf85e71-7ed0b3d3-531b6b68-24a5ca89",
        "8385a8ad-ad5e02a8-8e1fa7f3-d822c648-2a41a205",
        "87495016-a6efd89e-a3697ec7-89a81d53-627a2e13",
        "93020995-6b84ca33-2e41e00d-5d6e3bee-87cfe5c6",
        "996fb121-fab58dd2-7521fd7e-f9f3133c-bc202556",
        "9c42d877-dfa63a03-a1f2eb8c-127c60c3-b20b7e01",
        "a9f0620b-6e256cbd-a7f66357-2fe78c8a-49caac26",
        "d496943d-153ec9a5-c6dfe4c0-4fb9e57f-675596eb",
        "db9511e3-ee0359ab-489c3556-4a9b2277-c0bf0369",
        "e180a7b6-684946d6-fe1782de-45ed1033-1a6f8a51",
        "f55a5fe2-395fc452-4e6b63d9-3341534a-ebb882d5",
        "f57b4a53-5fecd631-2fe14e8a-f4780ee0-b8471007",
        "f5f82c2f-e99a7a06-6ecc9991-072adb2f-497dae52",
    ]
)
"""Names of the 23 images that CheXWorld and an earlier project leave out; neither says why."""

_FOLDERS = ("files", "files_*")
_PATIENTS = "p1[0-9]"


def mimic_paths(images: Path, table: pd.DataFrame, suffix: str = ".jpg") -> list[str]:
    """Return where the images of a table are, relative to their folder.

    That is ``files/p10/p10000032/s50414267/<dicom_id>.jpg``; resized copies have ``files_512`` or
    nothing in place of ``files``. Where there is no such folder, images are known by their name.

    Args:
        images: Folder of the images.
        table: A frame with `MIMIC_IDS`.
        suffix: Suffix of the images.
    """
    names = table["dicom_id"] + suffix
    top = find_optional(images, *_FOLDERS)
    if top is None and find_optional(images, _PATIENTS) is None:
        return locate(names, find_files(images))
    patient = table["subject_id"]
    folder = "p" + patient.str[:2] + "/p" + patient + "/s" + table["study_id"] + "/"
    prefix = "" if top is None else f"{top.name}/"
    return (prefix + folder + names).tolist()


def mimic_table(folder: Path) -> pd.DataFrame | None:
    """Return the table of a folder that knows most of MIMIC-CXR's images, None without any.

    It has `MIMIC_IDS`, and ``ViewPosition`` if it is the metadata.
    """
    file = find_optional(folder, METADATA, SPLIT, RECORDS)
    return None if file is None else read_table(file, MIMIC_IDS)


def mimic_images(images: Path, names: Column) -> pd.DataFrame:
    """Return path, patient_id, study_id and view_position (n, 4) of images known by `dicom_id`.

    They come from a table of MIMIC-CXR in the folder, and without one from the paths of the images
    in it.

    Args:
        images: Folder of the images.
        names: The `dicom_id` (n,) of each.
    """
    table = mimic_table(images)
    if table is None:
        paths = pd.Series(locate(names + ".jpg", find_files(images)), dtype="string")
        ids = paths.str.extract(r"p(?P<patient_id>\d{8})/s(?P<study_id>\d{8})/")
        nothing = pd.array([pd.NA] * len(paths), dtype="string")
        return ids.assign(path=paths, view_position=nothing)
    known = table.drop_duplicates("dicom_id").set_index("dicom_id")
    known = known.reindex(pd.Index(names, name="dicom_id")).reset_index()
    there = known["subject_id"].notna()
    path = known["dicom_id"] + ".jpg"
    path[there] = np.array(mimic_paths(images, known[there]), dtype=np.object_)
    return pd.DataFrame(
        {
            "path": path,
            "patient_id": known["subject_id"],
            "study_id": known["study_id"],
            "view_position": mimic_views(known),
        }
    )


def mimic_views(table: pd.DataFrame) -> Column:
    """Return the canonical views (n,): of `ViewPosition`, and where it is blank of the view's code.

    Args:
        table: A frame with `ViewPosition` and `ViewCodeSequence_CodeMeaning`, as far as it has any.
    """
    view, code = (
        table[name].fillna("").str.strip() if name in table else pd.Series("", index=table.index)
        for name in ("ViewPosition", "ViewCodeSequence_CodeMeaning")
    )
    return view_positions(view.where(view != "", code))


def mimic_splits(folder: Path, names: Column) -> "pd.Series[Any] | None":
    """Return MIMIC-CXR's split (n,) of images, missing of those it does not list.

    Args:
        folder: Folder with ``mimic-cxr-2.0.0-split.csv.gz``; without it, None is returned.
        names: The `dicom_id` (n,) of each.
    """
    file = find_optional(folder, SPLIT)
    if file is None:
        return None
    table = read_table(file, ("dicom_id", "split"))
    split = official_splits(table["split"], file)
    return names.map(dict(zip(table["dicom_id"], split, strict=True))).astype("string")

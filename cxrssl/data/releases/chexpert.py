"""CheXpert."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from cxrssl.data.image import IMAGE_SUFFIXES
from cxrssl.data.releases.chexpert_files import (
    CHEXPERT_FINDINGS,
    chexpert_names,
    chexpert_paths,
    chexpert_views,
)
from cxrssl.data.releases.fields import ages, sexes
from cxrssl.data.releases.files import find_file, find_optional
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_columns, read_table
from cxrssl.errors import InputError

__all__ = ["CheXpert"]

_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)
_TRAINING = {
    "chexpert": "train.csv",
    "chexbert": "train_cheXbert.csv",
    "visualchexbert": "train_visualCheXbert.csv",
}
_TRUTH = ("groundtruth.csv", "test_labels.csv")
_NAMES = ["path", "image", "study_id", "patient_id", "split"]


class CheXpert(Release):
    """CheXpert (Irvin et al., AAAI 2019): 224,316 radiographs, 14 findings.

    Reads ``train.csv``, ``valid.csv`` and the images of the small copy or of the whole release in
    its four batches. Images below ``test`` are the test split, with the labels of their study in
    ``groundtruth.csv`` or CheXlocalize's ``test_labels.csv``, missing where there is no such table.
    Uncertain labels are -1, those that a report does not mention are missing. Age 0 is missing. See
    `Release` for the other arguments.

    Args:
        root: Folder of the release.
        labeller: Labeller of the training images: CheXpert's, or CheXbert or VisualCheXbert, whose
            tables the whole release has.
        options: See `Release`.
    """

    title: ClassVar[str] = "CheXpert"
    collection: ClassVar[str] = "chexpert"
    findings: ClassVar[tuple[str, ...]] = CHEXPERT_FINDINGS
    counts: ClassVar[dict[str, int]] = {
        "images": 224_316,
        "patients": 65_240,
        "train": 223_414,
        "train patients": 64_540,
        "val": 234,
        "val patients": 200,
        "test": 668,
        "test patients": 500,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "paths that begin with the name of another copy",
        "training images in three batches",
        "`LL` and `RL` on frontal images",
        "age 0 and sex `Unknown`",
        "blank is not negative",
        "test labels of studies, without a last line end",
    )

    def __init__(
        self,
        root: str,
        *,
        labeller: Literal["chexpert", "chexbert", "visualchexbert"] = "chexpert",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.labeller = labeller

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the tables, and per image of the folder of the test set."""
        name = _TRAINING[self.labeller]
        parts = [self._read(find_file(root, name, f"*/{name}", release=self.title), "train")]
        valid = find_optional(root, "valid.csv", "*/valid.csv")
        if valid is not None:
            parts.append(self._read(valid, "val"))
        test = self._read_test(root)
        if not test.empty:
            parts.append(test)
        return pd.concat(parts, ignore_index=True)

    def _read(self, file: Path, split: str) -> pd.DataFrame:
        """Return the rows of a table with a row per image."""
        table = read_table(file, _COLUMNS)
        names = chexpert_names(table["Path"], file)
        names["path"] = chexpert_paths(Path(self.images_root), names)
        age = ages(table["Age"])
        frame = names.assign(
            split=split,
            view_position=chexpert_views(table["Frontal/Lateral"], table["AP/PA"], file),
            sex=sexes(table["Sex"]),
            age=np.where(age > 0, age, np.nan),
        )
        frame = frame[[*_NAMES, "view_position", "sex", "age"]]
        return pd.concat([frame, labels_of_columns(table, self.findings, file)], axis=1)

    def _read_test(self, root: Path) -> pd.DataFrame:
        """Return a row per image below the folder of the test set, which no table lists."""
        images = Path(self.images_root)
        folder = find_optional(images, "test", "[Cc]he[Xx]pert*/test")
        found = [] if folder is None else sorted(folder.glob("patient*/study*/view*"))
        files = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        if not files:
            return pd.DataFrame()
        paths = pd.Series([file.relative_to(images).as_posix() for file in files])
        frame = chexpert_names(paths, images).assign(path=paths, split="test")
        lateral = frame["image"].str.endswith("lateral")
        frame["view_position"] = lateral.map({True: "LATERAL"}).astype("string")
        frame = frame[[*_NAMES, "view_position"]]
        frame[list(self.findings)] = self._truth(root, frame["study_id"])
        return frame

    def _truth(self, root: Path, studies: "pd.Series[str]") -> pd.DataFrame | float:
        """Return the labels (n, F) of the studies of the test set, NaN without their table."""
        file = find_optional(root, *_TRUTH, *(f"*/{name}" for name in _TRUTH))
        if file is None:
            return np.nan
        table = read_table(file, self.findings)
        key = next((name for name in ("Study", "Path") if name in table), None)
        if key is None:
            raise InputError(
                f"{file} has no column 'Study', and no 'Path' either; it has "
                f"{', '.join(map(repr, table.columns))}"
            )
        study = table[key].str.extract(r"(patient\d+/study\d+)", expand=False)
        labels = labels_of_columns(table, self.findings, file).set_index(study)
        return labels[~labels.index.duplicated()].reindex(studies).reset_index(drop=True)

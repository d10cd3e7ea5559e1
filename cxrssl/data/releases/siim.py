"""SIIM-ACR Pneumothorax Segmentation."""

from pathlib import Path
from typing import ClassVar

import pandas as pd

from cxrssl.data.releases.files import find_file, find_files, locate, unlisted
from cxrssl.data.releases.headers import DicomRelease
from cxrssl.data.releases.regions import join_regions
from cxrssl.data.releases.tables import read_table
from cxrssl.data.runs import EMPTY
from cxrssl.data.targets import MaskRules
from cxrssl.data.validate import MASK

__all__ = ["SIIMPneumothorax"]

_STUDY = r"(?:^|/)([0-9.]+)/[0-9.]+/[^/]+$"
"""The folder of the study, where a path has the folders of a study and of a series."""


class SIIMPneumothorax(DicomRelease):
    """SIIM-ACR Pneumothorax Segmentation (Kaggle 2019): 12,047 annotated radiographs.

    Reads ``stage_2_train.csv`` or ``train-rle.csv`` and finds the images anywhere below the folder.
    Images that the table does not speak of, the test images among them, are in the index without a
    label. The images are of NIH ChestX-ray14, but nothing says which, and no patient is named. See
    `DicomRelease` for the arguments.
    """

    title: ClassVar[str] = "SIIM-ACR Pneumothorax Segmentation"
    collection: ClassVar[str] = "siim"
    findings: ClassVar[tuple[str, ...]] = ("Pneumothorax",)
    structures_of_masks: ClassVar[tuple[str, ...]] = ("pneumothorax",)
    mask_format: ClassVar[MaskRules] = MaskRules("gap", (1024, 1024))
    counts: ClassVar[dict[str, int]] = {"masks": 12_047, "Pneumothorax": 2_669}
    traps: ClassVar[tuple[str, ...]] = (
        "a blank before a column name and before -1",
        "several rows for one image",
        "starts that count from the last run",
        "rows without an image, images without a row",
        "JPEG within DICOM",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table, then those that it does not speak of."""
        tables = ("stage_2_train.csv", "train-rle.csv")
        file = find_file(root, *tables, *(f"*/{name}" for name in tables), "*train*rle*.csv",
                         release=self.title)  # fmt: skip
        table = read_table(file, ("ImageId", "EncodedPixels"))
        masks = join_regions(table["ImageId"].str.strip(), table["EncodedPixels"], file)
        found = find_files(Path(self.images_root), ignore=("mask*", "annotation*"))
        others = unlisted(found, masks.index)
        frame = pd.DataFrame(
            {
                "path": [*locate(masks.index + ".dcm", found), *others.values()],
                "image": [*masks.index, *others],
            }
        )
        frame["study_id"] = frame["path"].str.extract(_STUDY, expand=False)
        frame = self.with_headers(frame)
        references = masks.reindex(frame["image"]).array
        frame[MASK + "pneumothorax"] = references
        frame["Pneumothorax"] = (pd.Series(references) != EMPTY).astype("Float32")
        return frame

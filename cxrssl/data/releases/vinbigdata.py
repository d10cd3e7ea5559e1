"""VinBigData Chest X-ray Abnormalities Detection."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from cxrssl.data.releases.boxes import boxes_by_image
from cxrssl.data.releases.files import find_file, find_files, locate, unlisted
from cxrssl.data.releases.readers import (
    BoxRule,
    ReaderRule,
    agree,
    boxes_of_rows,
    check_rules,
    votes_of_rows,
)
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import read_table

__all__ = ["VinBigData"]

_COLUMNS = ("image_id", "class_name", "rad_id", "x_min", "y_min", "x_max", "y_max")


class VinBigData(Release):
    """VinBigData Chest X-ray Abnormalities (Kaggle): 15,000 radiographs, 14 findings, boxes.

    Reads ``train.csv``, in which three readers drew what they saw on each image. Images it does
    not speak of are those of the test set, whose labels are not public. The training images are
    those of VinDr-CXR. The release names no patients.

    Args:
        root: Folder of the release.
        readers: When a finding is positive: if ``majority``, ``any`` or ``all`` of the readers
            of an image drew it.
        boxes: ``readers`` keeps every box with who drew it, ``fused`` makes one of those that
            overlap, see `fuse_boxes`. Boxes that one reader alone drew stay in both.
        options: See `Release`; all images are PA.
    """

    title: ClassVar[str] = "VinBigData Chest X-ray Abnormalities"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "vindr"
    findings: ClassVar[tuple[str, ...]] = (
        "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation",
        "ILD", "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
        "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "No finding",
    )  # fmt: skip
    counts: ClassVar[dict[str, int]] = {
        "images": 18_000,
        "boxes": 36_096,
        "images with boxes": 4_394,
        "No finding": 10_606,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "a row for each reader and box",
        "rows of `No finding` with blank boxes",
        "the images of VinDr-CXR under the same names",
        "test images without labels",
        "resized copies in PNG or JPEG",
    )

    def __init__(
        self,
        root: str,
        *,
        readers: ReaderRule = "majority",
        boxes: BoxRule = "readers",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        check_rules(readers, boxes)
        self.readers = readers
        self.boxes = boxes

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table, then those that are in no table."""
        file = find_file(root, "train.csv", "*/train.csv", release=self.title)
        table = read_table(file, _COLUMNS)
        boxes = boxes_of_rows(table, self.findings[:-1], file, self.boxes)
        labels = agree(votes_of_rows(table, self.findings), self.readers)
        found = find_files(Path(self.images_root))
        tests = unlisted(found, labels.index)
        names = [*labels.index, *tests]
        frame = pd.DataFrame(
            {
                "path": [*locate(labels.index + ".dicom", found), *tests.values()],
                "image": names,
                "view_position": "PA",
                "split": pd.array([pd.NA] * len(labels) + ["test"] * len(tests), dtype="string"),
                "boxes": boxes_by_image(boxes, names),
            }
        )
        frame[list(self.findings)] = labels.reindex(names).to_numpy()
        return frame

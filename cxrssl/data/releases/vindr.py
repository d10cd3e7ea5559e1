"""VinDr-CXR and VinDr-PCXR."""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from cxrssl.data.releases.boxes import Box, boxes_by_image
from cxrssl.data.releases.files import find_file, find_files, find_optional, locate
from cxrssl.data.releases.headers import DicomRelease
from cxrssl.data.releases.readers import (
    BoxRule,
    ReaderRule,
    agree,
    boxes_of_rows,
    check_rules,
    votes_of_columns,
)
from cxrssl.data.releases.tables import read_table, require_columns

__all__ = ["VINDR_FINDINGS", "VinDrCXR", "VinDrPCXR"]

VINDR_FINDINGS = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
)  # fmt: skip
_LOCAL = 22

# The spelling is that of the files throughout.
_PCXR_FINDINGS = (
    "No finding", "Bronchitis", "Brocho-pneumonia", "Other disease", "Bronchiolitis",
    "Situs inversus", "Pneumonia", "Pleuro-pneumonia", "Diagphramatic hernia", "Tuberculosis",
    "Congenital emphysema", "CPAM", "Hyaline membrane disease", "Mediastinal tumor", "Lung tumor",
)  # fmt: skip
_PCXR_CLASSES = (
    "Boot-shaped heart", "Peribronchovascular interstitial opacity", "Reticulonodular opacity",
    "Bronchial thickening", "Enlarged PA", "Cardiomegaly", "Diffuse aveolar opacity",
    "Other opacity", "Other lesion", "Consolidation", "Mediastinal shift",
    "Anterior mediastinal mass", "Dextro cardia", "Pleural effusion", "Stomach on the right side",
    "Atelectasis", "Lung hyperinflation", "Egg on string sign",
    "Interstitial lung disease - ILD", "Infiltration", "Lung cavity", "Pneumothorax", "Edema",
    "Pleural thickening", "Other nodule/mass", "Clavicle fracture", "Chest wall mass", "Lung cyst",
    "Emphysema", "Bronchectasis", "Expanded edges of the anterior ribs", "Pulmonary fibrosis",
    "Paraveterbral mass", "Aortic enlargement", "Calcification",
    "Intrathoracic digestive structure",
)  # fmt: skip


class _VinDr(DicomRelease):
    """What the tables of both have in common.

    Args:
        root: Folder of the release.
        readers: How readers make one label.
        boxes: How readers make one list of boxes.
        options: See `DicomRelease`.
    """

    box_classes: ClassVar[tuple[str, ...]]
    """What a box may be of."""

    def __init__(self, root: str, *, readers: ReaderRule, boxes: BoxRule, **options: Any) -> None:
        super().__init__(root, **options)
        check_rules(readers, boxes)
        self.readers = readers
        self.boxes = boxes

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the tables of image labels."""
        labels, boxes = [], {}
        for split, file in self._label_files(root).items():
            table = _read(file, ("image_id", *self.findings))
            votes = votes_of_columns(table, self.findings, file)
            labels.append(agree(votes, self.readers).assign(split=split))
            boxes.update(self._boxes(file.with_name(f"annotations_{split}.csv")))
        found = pd.concat(labels)
        names = found.index.astype("string")
        frame = pd.DataFrame(
            {
                "path": locate(names + ".dicom", find_files(Path(self.images_root))),
                "image": names,
                "split": found["split"].to_numpy(),
                "boxes": boxes_by_image(boxes, names),
            }
        )
        frame = self.with_headers(frame)
        frame[list(self.findings)] = found[list(self.findings)].to_numpy()
        return frame

    def _label_files(self, root: Path) -> dict[str, Path]:
        """Return the tables of image labels that are there, at least one of train and test."""
        names = {split: f"image_labels_{split}.csv" for split in ("train", "test")}
        places = {split: (f"annotations/{name}", name) for split, name in names.items()}
        found = {split: find_optional(root, *place) for split, place in places.items()}
        files = {split: file for split, file in found.items() if file is not None}
        return files or {"train": find_file(root, *places["train"], release=self.title)}

    def _boxes(self, file: Path) -> dict[str, list[Box]]:
        if not file.is_file():
            return {}
        table = _read(file, ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max"))
        return boxes_of_rows(table, self.box_classes, file, self.boxes)


class VinDrCXR(_VinDr):
    """VinDr-CXR (Nguyen et al., Scientific Data 2022): 18,000 radiographs, 28 findings, boxes.

    Reads ``image_labels_train.csv``, three readers for each image, ``image_labels_test.csv``, the
    consensus of five, and the boxes of ``annotations_train.csv`` and ``annotations_test.csv``. The
    release names no patients.

    Args:
        root: Folder of the release.
        readers: When a finding of a training image is positive: if ``majority``, ``any`` or ``all``
            of its readers say so.
        boxes: ``readers`` keeps every training box with who drew it, ``fused`` makes one of those
            that overlap, see `fuse_boxes`. Boxes that one reader alone drew stay in both.
        options: See `DicomRelease`; all images are PA.
    """

    title: ClassVar[str] = "VinDr-CXR"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "vindr"
    findings: ClassVar[tuple[str, ...]] = VINDR_FINDINGS
    box_classes: ClassVar[tuple[str, ...]] = VINDR_FINDINGS[:_LOCAL]
    counts: ClassVar[dict[str, int]] = {"images": 18_000, "test": 3_000}
    traps: ClassVar[tuple[str, ...]] = (
        "three readers for each training image, one consensus for each test image",
        "`Other disease` in the test table",
        "rows of `No finding` with blank boxes",
        "MONOCHROME1",
        "several transfer syntaxes",
    )

    def __init__(
        self,
        root: str,
        *,
        readers: ReaderRule = "majority",
        boxes: BoxRule = "readers",
        **options: Any,
    ) -> None:
        super().__init__(root, readers=readers, boxes=boxes, **options)

    def with_headers(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with sex and age, if asked for, and PA."""
        if self.read_headers:
            frame = super().with_headers(frame)
        return frame.assign(view_position="PA")


class VinDrPCXR(_VinDr):
    """VinDr-PCXR (Pham et al.): 9,125 radiographs of children under ten, 15 diagnoses, boxes.

    Reads ``image_labels_train.csv``, ``image_labels_test.csv`` and the boxes, of 36 classes other
    than the diagnoses, of ``annotations_train.csv`` and ``annotations_test.csv``. One reader saw
    each image. The release names no patients. See `DicomRelease` for the arguments.
    """

    title: ClassVar[str] = "VinDr-PCXR"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "vindr-pcxr"
    findings: ClassVar[tuple[str, ...]] = _PCXR_FINDINGS
    box_classes: ClassVar[tuple[str, ...]] = _PCXR_CLASSES
    counts: ClassVar[dict[str, int]] = {"images": 9_125, "test": 1_397}
    traps: ClassVar[tuple[str, ...]] = (
        "`rad_ID` where VinDr-CXR has `rad_id`",
        "no folder of annotations",
        "misspelt classes, kept",
        "ages in days, months and years",
    )

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(root, readers="majority", boxes="readers", **options)


_SPELLINGS = {"Other disease": "Other diseases"}


def _read(file: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """Return a table with `rad_id` and the training table's names, whichever way it spells them."""
    table = read_table(file)
    names = {name: "rad_id" for name in map(str, table) if name.lower() == "rad_id"}
    lacking = {old: new for old, new in _SPELLINGS.items() if new in required and new not in table}
    table = table.rename(columns=names | lacking)
    require_columns(table, required, file)
    return table

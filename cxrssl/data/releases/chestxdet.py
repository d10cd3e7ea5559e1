"""ChestX-Det and ChestX-Det10."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from cxrssl.data.releases.boxes import Box, boxes_by_image
from cxrssl.data.releases.files import find_file, find_files, find_optional, find_under, locate
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_lists
from cxrssl.data.runs import EMPTY
from cxrssl.data.targets import MaskRules
from cxrssl.errors import InputError

__all__ = ["ChestXDet", "ChestXDet10"]

_DET = (
    "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "Diffuse Nodule", "Effusion",
    "Emphysema", "Fibrosis", "Fracture", "Mass", "Nodule", "Pleural Thickening", "Pneumothorax",
)  # fmt: skip
_DET10 = tuple(
    name for name in _DET if name not in ("Cardiomegaly", "Diffuse Nodule", "Pleural Thickening")
)
_SPLITS = ("train", "test")

Item = dict[str, Any]


class _Deepwise(Release):
    """What both releases share: a list of images with their findings and boxes for each split."""

    names_of_lists: ClassVar[tuple[str, ...]]
    """Patterns of the names of the lists, with ``{split}``."""

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the lists."""
        patterns = {
            split: [name.format(split=split) for name in self.names_of_lists] for split in _SPLITS
        }
        every = [pattern for split in _SPLITS for pattern in patterns[split]]
        find_file(root, *every, release=self.title)
        parts = [
            self._part(split, file)
            for split in _SPLITS
            if (file := find_optional(root, *patterns[split])) is not None
        ]
        return pd.concat(parts, ignore_index=True)

    def _part(self, split: str, file: Path) -> pd.DataFrame:
        items = _read_items(file)
        images = Path(self.images_root)
        found = find_under(images, f"**/{split}_data") or find_files(images)
        names = [str(item["file_name"]) for item in items]
        boxes = {
            name: _boxes(item, self.findings, file) for name, item in zip(names, items, strict=True)
        }
        frame = pd.DataFrame(
            {
                "path": locate(names, found),
                "image": [Path(name).stem for name in names],
                "split": split,
                "boxes": boxes_by_image(boxes, names),
            }
        )
        for structure in self.structures_of_masks:
            frame[f"mask/{structure}"] = [_polygons(item, structure, file) for item in items]
        frame[list(self.findings)] = labels_of_lists(
            [item["syms"] for item in items], self.findings
        )
        return frame


class ChestXDet(_Deepwise):
    """ChestX-Det (Lian et al., 2021): 3,578 radiographs, 13 findings with boxes and polygons.

    Reads ``ChestX_Det_train.json`` and ``ChestX_Det_test.json`` and the images in ``train_data``
    and ``test_data``, or anywhere below the folder. The images are some of NIH ChestX-ray14 under
    other names: nothing but their pixels tells which. See `Release` for the arguments.
    """

    title: ClassVar[str] = "ChestX-Det"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "chestxdet"
    findings: ClassVar[tuple[str, ...]] = _DET
    structures_of_masks: ClassVar[tuple[str, ...]] = _DET
    mask_format: ClassVar[MaskRules] = MaskRules(format="polygon", frame=(1024, 1024))
    counts: ClassVar[dict[str, int]] = {
        "images": 3_578,
        "test": 553,
        "boxes": 9_639,
        "images with boxes": 2_967,
    }
    traps: ClassVar[tuple[str, ...]] = (
        "NIH images under other names",
        "corners of boxes, not width and height",
        "a finding several times in one image",
        "images without any finding",
    )
    names_of_lists: ClassVar[tuple[str, ...]] = (
        "ChestX_Det_{split}.json",
        "**/ChestX_Det_{split}.json",
    )


class ChestXDet10(_Deepwise):
    """ChestX-Det10 (Liu et al., 2020): 3,543 radiographs, 10 findings with boxes.

    Reads ``train.json`` and ``test.json`` and the images in ``train_data`` and ``test_data``, or
    anywhere below the folder. The images are some of NIH ChestX-ray14, as those of `ChestXDet` are.
    See `Release` for the arguments.
    """

    title: ClassVar[str] = "ChestX-Det10"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "chestxdet10"
    findings: ClassVar[tuple[str, ...]] = _DET10
    counts: ClassVar[dict[str, int]] = {"images": 3_543, "test": 542}
    traps: ClassVar[tuple[str, ...]] = ChestXDet.traps
    names_of_lists: ClassVar[tuple[str, ...]] = (
        "{split}.json",
        "**/{split}.json",
        "**/ChestX*Det10*{split}.json",
    )


def _read_items(file: Path) -> list[Item]:
    """Return the items of a list, each with its name, findings and boxes."""
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(items, list):
        raise InputError(f"{file} holds no list of images: is it the file of another release?")
    for number, item in enumerate(items):
        if not isinstance(item, dict) or not {"file_name", "syms", "boxes"} <= item.keys():
            raise InputError(
                f"{file}: item {number + 1} lacks file_name, syms or boxes: is it the file of "
                "another release?"
            )
    return items


def _boxes(item: Item, findings: tuple[str, ...], file: Path) -> list[Box]:
    """Return the boxes of an image, checked with what they are of."""
    where = f"{file}: {item['file_name']}"
    if unknown := [name for name in item["syms"] if name not in findings]:
        raise InputError(f"{where} has {unknown[0]!r}, no finding of {', '.join(findings)}")
    if len(item["syms"]) != len(item["boxes"]):
        raise InputError(
            f"{where} has {len(item['syms'])} findings and {len(item['boxes'])} boxes; each "
            "finding needs one"
        )
    boxes = []
    for name, corners in zip(item["syms"], item["boxes"], strict=True):
        try:
            left, top, right, bottom = map(float, corners)
        except (TypeError, ValueError):
            raise InputError(
                f"{where} has the box {corners!r}; x1, y1, x2 and y2 are expected"
            ) from None
        boxes.append(Box(name, left, top, right, bottom))
    return boxes


def _polygons(item: Item, finding: str, file: Path) -> str:
    """Return the polygons of a finding as text; without the finding the mask is empty."""
    polygons = item.get("polygons", [])
    if len(polygons) != len(item["syms"]):
        raise InputError(
            f"{file}: {item['file_name']} has {len(item['syms'])} findings and {len(polygons)} "
            "polygons; each finding needs one"
        )
    own = [polygon for name, polygon in zip(item["syms"], polygons, strict=True) if name == finding]
    return json.dumps(own) if own else EMPTY

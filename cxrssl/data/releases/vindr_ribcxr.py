"""VinDr-RibCXR."""

import json
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd

from cxrssl.data.releases.files import find_file, find_files, find_optional, locate
from cxrssl.data.releases.release import Release
from cxrssl.data.runs import EMPTY
from cxrssl.data.targets import MaskRules
from cxrssl.data.validate import MASK
from cxrssl.errors import InputError

__all__ = ["VinDrRibCXR"]


class VinDrRibCXR(Release):
    """VinDr-RibCXR (Nguyen et al., MIDL 2021): 245 radiographs with masks of twenty ribs.

    Reads ``Vindr_RibCXR_train_mask.json`` and ``Vindr_RibCXR_val_mask.json``, whose polygons are in
    pixels of the image. R and L are sides of the patient. The release names no patients, has no
    test set and no findings. See `Release` for the arguments.
    """

    title: ClassVar[str] = "VinDr-RibCXR"
    collection: ClassVar[str] = "vindr-ribcxr"
    structures_of_masks: ClassVar[tuple[str, ...]] = tuple(
        f"{side}{rib}" for side in "RL" for rib in range(1, 11)
    )
    mask_format: ClassVar[MaskRules] = MaskRules("polygon")
    counts: ClassVar[dict[str, int]] = {"images": 245, "train": 196, "val": 49, "masks": 245}
    traps: ClassVar[tuple[str, ...]] = (
        "`Vindr` in the names of tables, `VinDr` in those of images",
        "overlapping ribs",
        'an absent rib is the text "None"',
        "image paths from another root",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the two files."""
        names = {split: f"[Vv]in[Dd]r_RibCXR_{split}_mask.json" for split in ("train", "val")}
        files = {split: find_optional(root, name, f"*/{name}") for split, name in names.items()}
        if not any(files.values()):
            find_file(root, "Vindr_RibCXR_train_mask.json", release=self.title)
        frames = [self._frame(file).assign(split=split) for split, file in files.items() if file]
        frame = pd.concat(frames, ignore_index=True)
        frame["path"] = locate(frame["image"], find_files(Path(self.images_root)))
        return frame.assign(view_position="PA")

    def _frame(self, file: Path) -> pd.DataFrame:
        """Return the names of the images of a file and their masks."""
        table = _read(file, ("img", *self.structures_of_masks))
        images: dict[str, str] = {key: str(path) for key, path in table["img"].items()}
        columns: dict[str, list[str | None]] = {
            MASK + rib: [_reference(table[rib].get(key), f"{file}: {rib} of {key!r}")
                         for key in images]
            for rib in self.structures_of_masks
        }  # fmt: skip
        names = [path.replace("\\", "/").rpartition("/")[2] for path in images.values()]
        return pd.DataFrame({"image": names, **columns})


def _read(file: Path, required: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the objects of a file by image, each of them by the number of the image."""
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    for name in required:
        if not isinstance(table, dict) or not isinstance(table.get(name), dict):
            raise InputError(
                f"{file} has no object {name!r}: expected are {', '.join(required)}, each with a "
                "value for the number of an image"
            )
    return {name: table[name] for name in required}


def _reference(value: Any, where: str) -> str | None:
    """Return the polygon of a rib as text, ``-1`` of an absent rib, None if nothing is said."""
    if value is None:
        return None
    if value == "None":
        return EMPTY  # "None" itself would be taken for a missing reference
    if isinstance(value, list) and value:
        return json.dumps(value)
    raise InputError(f"{where} is {str(value)[:40]!r}: a polygon is a list of points, or 'None'")

"""QaTa-COV19 v2."""

from pathlib import Path
from typing import ClassVar

import pandas as pd

from cxrssl.data.releases.files import find_files, find_under, mask_files
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.spreadsheet import read_spreadsheet
from cxrssl.data.targets import MaskRules
from cxrssl.errors import InputError

__all__ = ["QaTaCOV19"]

_FOLDERS = {"Train Set": "train", "Test Set": "test"}
_MASK = "mask_"


class QaTaCOV19(Release):
    """QaTa-COV19 v2 (Qatar and Tampere): 9,258 radiographs of COVID-19 with masks of the infection.

    Reads the images and masks in ``Train Set`` and ``Test Set``. With LViT's ``Val_ID.xlsx`` its
    images validate; the descriptions in any ``.xlsx`` with the columns ``Image`` and
    ``Description`` are the reports. All images are positive. They are pooled from other releases,
    BIMCV's among them, and cannot be told apart from theirs by name. See `Release` for the
    arguments.
    """

    title: ClassVar[str] = "QaTa-COV19"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "qatacov19"
    findings: ClassVar[tuple[str, ...]] = ("COVID-19",)
    structures_of_masks: ClassVar[tuple[str, ...]] = ("infection",)
    mask_format: ClassVar[MaskRules] = MaskRules(resize=True)
    counts: ClassVar[dict[str, int]] = {"images": 9_258, "test": 2_113, "masks": 9_258}
    traps: ClassVar[tuple[str, ...]] = (
        "blanks in the names of folders",
        "mask_ before the names of masks, and in the lists",
        "positive images only",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image."""
        parts = [self._part(root, folder, split) for folder, split in _FOLDERS.items()]
        frame = pd.concat(parts, ignore_index=True)
        if frame.empty:
            raise InputError(
                f"{self.images_root} is no release of {self.title}: it has no images in "
                f"{' or '.join(f'{folder}/Images' for folder in _FOLDERS)}; give the folder that "
                "holds these as root"
            )
        frame["text"] = frame["image"].map(_descriptions(root)).astype("string")
        validating = frame["image"].isin(_validation(root)) & (frame["split"] == "train")
        frame["split"] = frame["split"].mask(validating, "val")
        frame["COVID-19"] = 1.0
        return frame

    def _part(self, root: Path, folder: str, split: str) -> pd.DataFrame:
        found = find_under(Path(self.images_root), f"**/{folder}/Images")
        masks = mask_files(root, f"**/{folder}/Ground-truths")
        names = sorted(found)
        stems = pd.Series([Path(name).stem for name in names], dtype="string")
        return pd.DataFrame(
            {
                "path": [found[name] for name in names],
                "image": stems,
                "split": split,
                "mask/infection": (_MASK + stems).map(masks).astype("string"),
            }
        )


def _validation(root: Path) -> set[str]:
    """Return the names of the images of LViT's list, none where it is not there."""
    path = find_files(root, (".xlsx",)).get("Val_ID.xlsx")
    if path is None:
        return set()
    table = read_spreadsheet(root / path)
    if "Image" not in table:
        raise InputError(f"{root / path} has no column 'Image'; it has {list(table.columns)}")
    return {_image(name) for name in table["Image"]}


def _descriptions(root: Path) -> dict[str, str]:
    """Return the description of each image that has one."""
    descriptions: dict[str, str] = {}
    for _, path in sorted(find_files(root, (".xlsx",)).items()):
        table = read_spreadsheet(root / path)
        if {"Image", "Description"} <= set(table):
            rows = zip(table["Image"], table["Description"], strict=True)
            descriptions |= {_image(name): text.strip() for name, text in rows if text.strip()}
    return descriptions


def _image(name: str) -> str:
    """Return the name of the image: the lists have those of the masks."""
    return Path(name.strip()).stem.removeprefix(_MASK)

"""CheXmask: lungs and hearts of the images of other releases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.chexpert_files import chexpert_names, chexpert_paths
from cxrssl.data.releases.files import find_file, find_files, find_optional, locate
from cxrssl.data.releases.mimic_tables import mimic_images
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import number, read_table
from cxrssl.data.targets import MaskReader, MaskRules
from cxrssl.data.validate import MASK
from cxrssl.errors import InputError
from cxrssl.views.structures import resize_masks

__all__ = ["CheXmask"]

Source = Literal["ChestX-Ray8", "CheXpert", "MIMIC-CXR-JPG", "Padchest", "VinDr-CXR", "CANDID-PTX"]

_SOURCES: dict[Source, tuple[str, str]] = {
    "ChestX-Ray8": ("Image Index", "nih"),
    "CheXpert": ("Path", "chexpert"),
    "MIMIC-CXR-JPG": ("dicom_id", "mimic"),
    "Padchest": ("ImageID", "padchest"),
    "VinDr-CXR": ("image_id", "vindr"),
    "CANDID-PTX": ("ImageID", "candid"),
}
"""Column with the name of the image, and the collection it is of."""

_TABLES: dict[Source, tuple[str, str, str]] = {
    "Padchest": ("PADCHEST_chest_x_ray_images_labels_*.csv*", "ImageID", "PatientID"),
    "CANDID-PTX": ("Pneumothorax_reports.csv", "SOPInstanceUID", "filename"),
}
"""Table beside the images that knows their patients, and its columns of image and patient."""

_STRUCTURES = {"left lung": "Left Lung", "right lung": "Right Lung", "heart": "Heart"}
_MEAN, _MAX = "Dice RCA (Mean)", "Dice RCA (Max)"
_FOLDERS = {"original": "OriginalResolution", "preprocessed": "Preprocessed"}
_PREPROCESSED = 1024


class CheXmask(Release):
    """CheXmask (Gaggion et al., 2024): left and right lung and heart of 657,566 frontal images.

    Reads the table of one release, such as ``OriginalResolution/ChestX-Ray8.csv``; `images` is the
    folder of that release's images. Masks are run lengths in pixels of the image as released; an
    image of another size, as resized copies have, is taken to be the whole of it, and they are
    stretched. Sides are the patient's. The text of the masks is held in memory, several kilobytes
    for each image. Patients, or images where patients are not known, are split as `split` says. See
    `Release` for the other arguments.

    Args:
        root: Folder of the release.
        source: Release whose images the masks are of.
        resolution: Masks in pixels of the images as they were released, or of images brought to
            1024 x 1024.
        quality: Smallest mean Dice of the reverse classification accuracy that a mask is kept
            with; 0 keeps all. In PadChest's table mean and maximum are swapped in part; the smaller
            is the mean.
        options: See `Release`.
    """

    title: ClassVar[str] = "CheXmask"
    collection: ClassVar[str] = "chexmask"
    structures_of_masks: ClassVar[tuple[str, ...]] = tuple(_STRUCTURES)
    mask_format: ClassVar[MaskRules] = MaskRules(format="absolute")
    traps: ClassVar[tuple[str, ...]] = (
        "images of another release",
        "another identifier in each table",
        "mean and maximum swapped for PadChest",
        "landmarks in two spellings",
        "left is the patient's",
    )

    def __init__(
        self,
        root: str,
        *,
        source: Source = "ChestX-Ray8",
        resolution: Literal["original", "preprocessed"] = "original",
        quality: float = 0.7,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        if source not in _SOURCES:
            raise InputError(f"source must be one of {', '.join(_SOURCES)}, got {source!r}")
        if not 0 <= quality <= 1:
            raise InputError(f"quality must be a Dice in [0, 1], got {quality}")
        self.source: Source = source
        self.resolution = resolution
        self.quality = quality
        self._frames = pd.DataFrame()

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table with masks that are good enough."""
        folder, name = _FOLDERS[self.resolution], f"{self.source}.csv*"
        file = find_file(root, f"{folder}/{name}", f"*/{folder}/{name}", name, release=self.title)
        key, collection = _SOURCES[self.source]
        columns = [key, _MEAN, _MAX, *_STRUCTURES.values(), "Height", "Width"]
        # Landmarks, which are long, are not needed.
        table = read_table(file, columns, usecols=lambda column: column.strip() in columns)
        sizes = _sizes(table, file) if self.resolution == "original" else _PREPROCESSED
        table[["height", "width"]] = sizes
        table = table[self._is_good(table)].drop_duplicates(key).reset_index(drop=True)
        if table.empty:
            raise InputError(f"{file}: no mask has a quality of {self.quality}: set quality lower")
        frame = _images(self.source, Path(self.images_root), table[key], file)
        frame["origin"] = f"{collection}:" + frame.pop("name")
        frame["origin_patient"] = f"{collection}:" + frame["patient_id"]
        for structure, column in _STRUCTURES.items():
            frame[MASK + structure] = table[column]
        self._frames = table[["height", "width"]].set_index(pd.Index(frame["origin"]))
        return frame

    def make_masks(self, rows: pd.DataFrame, structures: Sequence[str]) -> MaskReader:
        """Return the masks of some rows of the index, in their order."""
        frames = self._frames.reindex(rows["origin"]).to_numpy(dtype=np.int64)
        return _Stretched(super().make_masks(rows, structures), frames)

    def _is_good(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        mean = number(table[_MEAN])
        if self.source == "Padchest":
            mean = np.minimum(mean, number(table[_MAX]))
        good: NDArray[np.bool_] = mean >= self.quality
        return good if self.quality else np.ones_like(good)


class _Stretched:
    """Masks that were written for images of other sizes.

    Args:
        masks: Reads the masks.
        frames: Height and width (n, 2) that each image had.
    """

    def __init__(self, masks: MaskReader, frames: NDArray[np.int64]) -> None:
        self._masks = masks
        self._frames = frames

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks (K, H, W) of an image (H, W): 1 inside, 0 outside, 255 not known."""
        height, width = map(int, self._frames[number])
        return resize_masks(self._masks.read(number, (height, width)), *shape)


def _sizes(table: pd.DataFrame, file: Path) -> NDArray[np.int64]:
    """Return height and width (n, 2) of the images."""
    sizes = np.stack([number(table[name]) for name in ("Height", "Width")], axis=1)
    wrong = np.flatnonzero(~(sizes >= 1).all(axis=1))
    if wrong.size:
        row = int(wrong[0])
        size = table[["Height", "Width"]].iloc[row].tolist()
        raise InputError(f"{file}: Height and Width are {size} in row {row + 1}, not pixels")
    return sizes.astype(np.int64)


def _images(source: Source, images: Path, names: "pd.Series[str]", file: Path) -> pd.DataFrame:
    """Return path, name, patient_id, and what else of images their names or a table say."""
    if source == "CheXpert":
        parts = chexpert_names(names, file)
        known = parts[["patient_id", "study_id"]]
        return known.assign(path=chexpert_paths(images, parts), name=parts["image"])
    if source == "MIMIC-CXR-JPG":
        return mimic_images(images, names).assign(name=names)
    if source == "CANDID-PTX":  # whose files have no suffix
        names = names.str.removesuffix(".jpg")
        paths = locate(names, find_files(images, ("",)))
    else:
        paths = locate(names, find_files(images))
    patients = _patients(source, images, names)
    return pd.DataFrame({"path": paths, "name": names, "patient_id": patients})


def _patients(source: Source, images: Path, names: "pd.Series[str]") -> "pd.Series[str]":
    """Return the patients (n,) of images, by their names or a table beside them, or missing."""
    if source == "ChestX-Ray8":
        return names.str.extract(r"^0*(\d+)_", expand=False)
    pattern, image, patient = _TABLES.get(source, ("", "", ""))
    file = find_optional(images, pattern) if pattern else None
    if file is None:
        return pd.Series(pd.array([pd.NA] * len(names), dtype="string"))
    table = read_table(file, (image, patient)).drop_duplicates(image)
    owners = table[patient]
    if source == "CANDID-PTX":
        owners = owners.str.split("_").str[0]
    return names.map(dict(zip(table[image], owners, strict=True))).astype("string")

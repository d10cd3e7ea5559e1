"""Lungs cut out of images of MIMIC-CXR."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.image import IMAGE_SUFFIXES, read_image
from cxrssl.data.releases.mimic_tables import mimic_images, mimic_table, mimic_views
from cxrssl.data.releases.release import Release
from cxrssl.data.targets import MaskReader
from cxrssl.data.validate import MASK
from cxrssl.errors import InputError
from cxrssl.views.structures import resize_masks

__all__ = ["MIMICLungSegment"]

_DICOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}")
_STUDY_ID = re.compile(r"s(\d{8})")
_LUNGS = ("lung", "seg")
_REST = ("rest", "non")
_LARGEST_HOLE = 1e-3
_LISTED = 5
_UNKNOWN = 255


class MIMICLungSegment(Release):
    """Lungs of 1,141 frontal images of MIMIC-CXR (Chen et al., 2022), cut out of the image.

    Each image is two files, its lungs and the rest; what is not black in the first is the mask
    `lungs`, small holes in it filled. How files are named is not settled: two whose names hold one
    `dicom_id`, or one study with a single frontal image, are a pair, and a word in one name alone
    (``lung``, ``seg``; ``rest``, ``non``) says which is which. `images` is the folder of MIMIC-CXR
    or MIMIC-CXR-JPG; a mask of another size is stretched over its image. Patients are split as
    `split` says. See `Release` for the arguments.
    """

    title: ClassVar[str] = "MIMIC-CXR lung segmentation"
    collection: ClassVar[str] = "mimic"
    structures_of_masks: ClassVar[tuple[str, ...]] = ("lungs",)
    counts: ClassVar[dict[str, int]] = {"images": 1_141, "masks": 1_141}
    traps: ClassVar[tuple[str, ...]] = (
        "images of another release",
        "grey lungs, not masks",
        "names are not documented",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per pair of files."""
        images = Path(self.images_root)
        if images.resolve() == root.resolve():
            raise InputError(
                f"{root} has the lungs of images, not the images: give the folder of MIMIC-CXR-JPG "
                "as images"
            )
        lungs = _of_images(_pairs(root), images)
        names = pd.Series(list(lungs), dtype="string")
        frame = mimic_images(images, names).assign(image=names)
        # In full: relative paths start from the folder of the images.
        frame[MASK + "lungs"] = [str(file.absolute()) for file in lungs.values()]
        return frame

    def make_masks(self, rows: pd.DataFrame, structures: Sequence[str]) -> MaskReader:
        """Return the masks of some rows of the index, in their order."""
        return _Lungs([rows[MASK + name].tolist() for name in structures])


class _Lungs:
    """Masks of what is not black in files.

    Args:
        files: For each structure, the file of each image, or missing.
    """

    def __init__(self, files: list[list[str]]) -> None:
        self._files = files

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks (K, H, W) of an image (H, W): 1 inside, 0 outside, 255 not known."""
        masks = np.full((len(self._files), *shape), _UNKNOWN, dtype=np.uint8)
        for mask, files in zip(masks, self._files, strict=True):
            if not pd.isna(files[number]):
                inside = _fill_holes(read_image(files[number]).pixels > 0)
                mask[:] = resize_masks(inside[None], *shape)[0]
        return masks


def _fill_holes(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask (H, W) with the holes filled that are too small to be anything but black lung.

    The outline stays as it is.
    """
    filled = inside.astype(np.uint8)
    _, areas, statistics, _ = cv2.connectedComponentsWithStats(1 - filled, connectivity=4)
    small = statistics[:, cv2.CC_STAT_AREA] <= _LARGEST_HOLE * inside.size
    small[0] = False  # what is inside
    border = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    small[border] = False
    filled[small[areas]] = 1
    return filled


def _pairs(root: Path) -> dict[str, Path]:
    """Return the file of the lungs by what is known of the image: its name, or s and its study."""
    files: dict[str, list[Path]] = {}
    others = []
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            name = file.relative_to(root).as_posix().lower()
            if found := _DICOM_ID.search(name) or _STUDY_ID.search(name):
                files.setdefault(found[0], []).append(file)
            else:
                others.append(file)
    lungs = {key: _lungs_of(pair, root) for key, pair in files.items()}
    pairs = {key: file for key, file in lungs.items() if file is not None}
    lone = others + [file for key, pair in files.items() if key not in pairs for file in pair]
    if lone or not pairs:
        names = ", ".join(file.relative_to(root).as_posix() for file in lone[:_LISTED])
        message = (
            f"{root}: {len(lone)} images are not the lungs and the rest of an image whose dicom_id "
            f"their names hold, for example {names or 'none, as there are no images'}"
        )
        if not pairs:
            raise InputError(f"{message}; unpack lung-segment-mimic-cxr and give its folder")
        warnings.warn(f"{message}. They are left out.", stacklevel=2)
    return pairs


def _lungs_of(pair: list[Path], root: Path) -> Path | None:
    """Return which of two files has the lungs, None if that cannot be told."""
    if len(pair) != 2:
        return None
    words = [set(_words(file, root)) for file in pair]
    own = [words[0] - words[1], words[1] - words[0]]
    rest = [_any_begins(mine, _REST) for mine in own]
    lungs = [_any_begins(mine, _LUNGS) for mine in own]
    if rest[0] != rest[1]:
        return pair[rest.index(False)]
    return pair[lungs.index(True)] if lungs[0] != lungs[1] else None


def _words(file: Path, root: Path) -> list[str]:
    return re.findall(r"[a-z]+", _DICOM_ID.sub("", file.relative_to(root).as_posix().lower()))


def _any_begins(words: set[str], beginnings: tuple[str, ...]) -> bool:
    return any(word.startswith(beginnings) for word in words)


def _of_images(lungs: dict[str, Path], images: Path) -> dict[str, Path]:
    """Return the files by `dicom_id`; of a study, that is the one of its only frontal image."""
    studies = {key[1:]: file for key, file in lungs.items() if _STUDY_ID.fullmatch(key)}
    if not studies:
        return lungs
    table = mimic_table(images)
    if table is None:
        raise InputError(
            f"the files of lungs name studies, not images, and {images} has no table of MIMIC-CXR "
            "that says which images those are: give the folder with mimic-cxr-2.0.0-metadata.csv.gz"
        )
    frontal = table[mimic_views(table).isin(["PA", "AP"]) & table["study_id"].isin(list(studies))]
    single = frontal.drop_duplicates("study_id", keep=False)
    if several := len(studies) - len(single):
        warnings.warn(
            f"{several} studies do not have one frontal image: their lungs are left out",
            stacklevel=2,
        )
    named = dict(zip(single["dicom_id"], single["study_id"].map(studies), strict=True))
    return {key: file for key, file in lungs.items() if key[1:] not in studies} | named

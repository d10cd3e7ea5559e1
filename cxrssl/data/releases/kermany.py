"""The paediatric pneumonia of Kermany et al."""

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from cxrssl.data.releases.files import find_under
from cxrssl.data.releases.release import Release
from cxrssl.errors import InputError

__all__ = ["KermanyPneumonia"]

# The validation folder of the copies has 16 images of the original training folder.
_FOLDERS = {"train": "train", "val": "train", "test": "test"}
_NORMAL, _PNEUMONIA = "NORMAL", "PNEUMONIA"
_CAUSES = ("bacteria", "virus")
_NAME = re.compile(r"(?P<person>person\d+)_(?P<cause>bacteria|virus)?", re.IGNORECASE)


class KermanyPneumonia(Release):
    """Paediatric pneumonia (Kermany et al., Cell 2018): 5,856 AP radiographs, ages 1 to 5 years.

    Reads ``train``, ``val`` and ``test`` with the folders ``NORMAL`` and ``PNEUMONIA``. ``val`` is
    part of the training images, as it was before copies took it out: its 16 images measure nothing.
    Children with pneumonia are known by the number in the name, which starts anew in training and
    test images; the others are not known.

    Args:
        root: Folder of the release.
        classes: ``two`` for NORMAL and PNEUMONIA; ``three`` for NORMAL and the causes bacteria and
            virus, as the names of the files tell them.
        options: See `Release`.
    """

    title: ClassVar[str] = "Kermany paediatric pneumonia"
    collection: ClassVar[str] = "kermany"
    findings: ClassVar[tuple[str, ...]] = (_NORMAL, _PNEUMONIA)
    counts: ClassVar[dict[str, int]] = {"images": 5_856, "test": 624}
    traps: ClassVar[tuple[str, ...]] = (
        "a validation folder of 16 images",
        "numbers of persons that start anew",
        "two styles of names",
        "three channels",
        "children only",
    )

    def __init__(
        self, root: str, *, classes: Literal["two", "three"] = "two", **options: Any
    ) -> None:
        super().__init__(root, **options)
        self.classes = classes
        if classes == "three":
            self.findings = (_NORMAL, *_CAUSES)  # type: ignore[misc]  # those of this choice

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image."""
        parts = [self._part(folder, kind) for folder in _FOLDERS for kind in (_NORMAL, _PNEUMONIA)]
        frame = pd.concat(parts, ignore_index=True)
        if frame.empty:
            raise InputError(
                f"{self.images_root} is no release of {self.title}: it has no images in "
                "train/NORMAL and the like; give the folder that holds train, val and test as root"
            )
        return frame

    def _part(self, folder: str, kind: str) -> pd.DataFrame:
        """Return the rows of a folder."""
        found = find_under(Path(self.images_root), f"**/{folder}/{kind}")
        names = sorted(found)
        matches = [_NAME.match(name) if kind == _PNEUMONIA else None for name in names]
        split = _FOLDERS[folder]
        persons = [f"{split}/{m['person'].lower()}" if m else pd.NA for m in matches]
        frame = pd.DataFrame(
            {
                "path": [found[name] for name in names],
                "image": [f"{split}/{kind}/{Path(name).stem}" for name in names],
                "patient_id": pd.array(persons, dtype="string"),
                "view_position": "AP",
                "split": split,
            }
        )
        frame[_NORMAL] = float(kind == _NORMAL)
        if self.classes == "two":
            frame[_PNEUMONIA] = float(kind == _PNEUMONIA)
            return frame
        causes = [(m["cause"] or "").lower() if m else "" for m in matches]
        for cause in _CAUSES:
            known = [float(cause == named) if named else np.nan for named in causes]
            frame[cause] = 0.0 if kind == _NORMAL else np.array(known, dtype=np.float64)
        return frame

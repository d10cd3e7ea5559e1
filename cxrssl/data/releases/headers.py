"""Sex, age and view from DICOM headers, for releases that have them nowhere else."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from cxrssl.data.releases.fields import ages, sexes, view_positions
from cxrssl.data.releases.release import Release
from cxrssl.errors import InputError

__all__ = ["DicomRelease", "header_fields"]

_ELEMENTS = ("PatientSex", "PatientAge", "ViewPosition")
_NOTHING = ("", "", "")
_THREADS = 16


class DicomRelease(Release):
    """A release whose DICOM headers alone know sex, age and view.

    Args:
        root: Folder of the release.
        read_headers: Whether sex, age and view are read from the headers, which opens every file
            once. Choosing `view_positions` reads them, too.
        options: See `Release`.
    """

    def __init__(self, root: str, *, read_headers: bool = False, **options: Any) -> None:
        super().__init__(root, **options)
        self.read_headers = read_headers

    def with_headers(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with sex, age and view, if asked for; else with a missing view.

        Args:
            frame: Its column ``path`` is relative to the folder of the images.
        """
        if not self.read_headers and self.view_positions is None:
            return frame.assign(view_position=pd.array([pd.NA] * len(frame), dtype="string"))
        fields = header_fields(self.images_root, frame["path"].tolist())
        return pd.concat([frame.reset_index(drop=True), fields], axis=1)


def header_fields(root: str, paths: Sequence[str]) -> pd.DataFrame:
    """Return the columns sex, age in years and view_position (n,) of DICOM headers.

    Of a file that is not there or is damaged nothing is known.

    Args:
        root: Folder that the paths start from.
        paths: Paths (n,).

    Raises:
        InputError: If there are files, and none of them is DICOM.
    """
    files = [os.path.join(root, path) for path in paths]
    with ThreadPoolExecutor(_THREADS) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's warnings may quote the header
        rows = list(pool.map(_read_header, files, chunksize=64))
    if not any(rows) and any(map(os.path.isfile, files)):
        raise InputError(
            f"no image in {root} is a DICOM file, and others have no header: leave read_headers "
            "and view_positions out for copies of another format"
        )
    texts = pd.DataFrame([row or _NOTHING for row in rows], columns=list(_ELEMENTS), dtype=str)
    return pd.DataFrame(
        {
            "sex": sexes(texts["PatientSex"]),
            "age": ages(texts["PatientAge"]),
            "view_position": view_positions(texts["ViewPosition"]),
        }
    )


def _read_header(file: str) -> tuple[str, ...] | None:
    """Return the text of the elements, empty where one is absent; None without a header."""
    from pydicom import dcmread  # slow to import

    try:
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(_ELEMENTS))
        return tuple(_text(header.get_item(name)) for name in _ELEMENTS)
    except Exception:  # a damaged header can fail in any way, and its image will be reported
        return None


def _text(element: Any) -> str:
    """Return the value of a raw element, which is not held against the rules of its kind."""
    value = getattr(element, "value", None)
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""

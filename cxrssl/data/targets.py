"""What is to be predicted of numbered images: labels, masks and reports."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cxrssl.data.masks import MaskFormat
from cxrssl.data.validate import label_names
from cxrssl.errors import InputError
from cxrssl.views.targets import Targets

__all__ = ["MaskReader", "MaskRules", "TargetTable", "check_targets", "labelled"]

_LISTED = 20


@dataclass(frozen=True)
class MaskRules:
    """How the masks of an index are written; see :class:`cxrssl.data.masks.MaskSource`.

    Args:
        format: ``file`` for images of masks, ``gap`` (SIIM-ACR, CANDID-PTX), ``absolute``
            (CheXmask) or ``kaggle`` run lengths, or ``polygon``.
        frame: Height and width of the grid of run lengths or polygons; the image's if left out.
        unknown: Value of pixels in files of masks of which nothing is known.
        resize: Whether files of masks of another size than their image are brought to it.
    """

    format: MaskFormat = "file"
    frame: tuple[int, int] | None = None
    unknown: int | None = None
    resize: bool = False


class MaskReader(Protocol):
    """Masks of numbered images, one for each structure."""

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks (K, H, W) of an image (H, W): 1 inside, 0 outside, 255 not known."""


def check_targets(index: pd.DataFrame, targets: Targets, structures: Sequence[str]) -> None:
    """Refuse targets that an index does not have.

    Args:
        index: A checked index.
        targets: What is wanted.
        structures: Structures the index has masks of.

    Raises:
        InputError: If a label, a mask or the reports are missing.
    """
    _need("label", targets.findings, label_names(index), "labels: name them with data.labels")
    _need("mask", targets.structures, structures, "columns 'mask/<structure>' with the masks")
    if targets.text and "text" not in index:
        raise InputError(
            "the index has no column 'text' with the findings of the reports: map it with "
            "data.columns={text: ...}"
        )


def labelled(index: pd.DataFrame, targets: Targets) -> NDArray[np.bool_]:
    """Return which images have any of the wanted labels and the report, as far as wanted."""
    known = np.ones(len(index), dtype=np.bool_)
    if targets.findings:
        known &= index[list(targets.findings)].notna().any(axis=1).to_numpy()
    if targets.text:
        known &= index["text"].notna().to_numpy(dtype=np.bool_)
    return known


class TargetTable:
    """Targets of the images of some rows of an index, numbered in their order.

    Args:
        rows: Rows of a checked index that has the targets.
        targets: What is wanted.
        masks: Reads the masks of the wanted structures, in their order.
    """

    def __init__(
        self, rows: pd.DataFrame, targets: Targets, masks: MaskReader | None = None
    ) -> None:
        self.structures = targets.structures
        self._masks = masks
        self._labels: NDArray[np.float32] | None = None
        if targets.findings:
            self._labels = rows[list(targets.findings)].to_numpy(dtype=np.float32)
        # One block that workers share, as the paths of the images are.
        self._texts = pa.array(rows["text"], type=pa.large_string()) if targets.text else None

    def masks(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8] | None:
        """Return the masks (K, H, W) of an image (H, W), None if none are wanted."""
        return None if self._masks is None else self._masks.read(number, shape)

    def of(self, numbers: NDArray[np.int64], readable: NDArray[np.bool_]) -> dict[str, Any]:
        """Return what a batch of images has besides pixels and masks.

        Args:
            numbers: Numbers (B,) of the images.
            readable: Which of them (B,) could be read; of the others no label is known.

        Returns:
            ``labels`` (B, F) float32, NaN for missing, and ``text``, a list of B reports, as far as
            they are wanted.
        """
        found: dict[str, Any] = {}
        if self._labels is not None:
            labels = self._labels[numbers]
            labels[~readable] = np.nan
            found["labels"] = torch.from_numpy(labels)
        if self._texts is not None:
            found["text"] = [self._texts[number].as_py() for number in numbers.tolist()]
        return found


def _need(kind: str, wanted: Sequence[str], found: Sequence[str], advice: str) -> None:
    lacking = [name for name in wanted if name not in found]
    if not lacking:
        return
    there = ", ".join(map(repr, found[:_LISTED])) + (", ..." if len(found) > _LISTED else "")
    has = f"it has {there}" if found else f"it has none; give it {advice}"
    raise InputError(f"the index has no {kind} {', '.join(map(repr, lacking))}; {has}")

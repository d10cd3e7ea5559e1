"""ChestMNIST and PneumoniaMNIST of MedMNIST."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.files import find_file
from cxrssl.data.releases.release import Release
from cxrssl.data.validate import SPLITS
from cxrssl.errors import InputError

__all__ = ["ChestMNIST", "PneumoniaMNIST"]


class _MedMNIST(Release):
    """What both releases share: an archive of arrays of images and labels.

    Args:
        root: Folder of the archive.
        size: Side of the images in pixels; each size is an archive of its own.
        options: See `Release`.
    """

    archive: ClassVar[str]
    """Name of the archive without its size and suffix."""

    def __init__(self, root: str, *, size: Literal[28, 64, 128, 224] = 28, **options: Any) -> None:
        super().__init__(root, **options)
        self.size = size

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the arrays."""
        name = f"{self.archive}.npz" if self.size == 28 else f"{self.archive}_{self.size}.npz"
        file = find_file(root, name, f"**/{name}", release=f"{self.title} of size {self.size}")
        path = file.relative_to(root).as_posix()
        parts = []
        for split in SPLITS:
            labels = _read_labels(file, f"{split}_labels", len(self.findings))
            rows = [str(row) for row in range(len(labels))]
            part = pd.DataFrame(labels, columns=list(self.findings))
            part.insert(0, "path", [f"{path}#{split}_images/{row}" for row in rows])
            part.insert(1, "image", [f"{split}/{row}" for row in rows])
            part.insert(2, "split", split)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)


class ChestMNIST(_MedMNIST):
    """ChestMNIST (Yang et al., MedMNIST v2): NIH ChestX-ray14 in small, 14 findings.

    Reads ``chestmnist.npz`` or ``chestmnist_64.npz`` and so on. The split is that of CheXNet by
    patient, not NIH's own; names of images and patients are lost, so that no other release of NIH
    can be told apart from it.

    Args:
        root: Folder of the archive.
        size: Side of the images in pixels; each size is an archive of its own.
        options: See `Release`.
    """

    title: ClassVar[str] = "ChestMNIST"
    collection: ClassVar[str] = "chestmnist"
    archive: ClassVar[str] = "chestmnist"
    findings: ClassVar[tuple[str, ...]] = (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia",
        "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    )  # fmt: skip
    counts: ClassVar[dict[str, int]] = {"train": 78_468, "val": 11_219, "test": 22_433}
    traps: ClassVar[tuple[str, ...]] = (
        "rows of arrays instead of files",
        "`pleural` for pleural thickening",
        "the split of CheXNet",
        "NIH images without their names",
    )


class PneumoniaMNIST(_MedMNIST):
    """PneumoniaMNIST (Yang et al., MedMNIST v2): the images of Kermany et al. in small.

    Reads ``pneumoniamnist.npz`` or ``pneumoniamnist_64.npz`` and so on. Names of images and
    children are lost, so that it cannot be told apart from `KermanyPneumonia`.

    Args:
        root: Folder of the archive.
        size: Side of the images in pixels; each size is an archive of its own.
        options: See `Release`.
    """

    title: ClassVar[str] = "PneumoniaMNIST"
    collection: ClassVar[str] = "pneumoniamnist"
    archive: ClassVar[str] = "pneumoniamnist"
    findings: ClassVar[tuple[str, ...]] = ("pneumonia",)
    counts: ClassVar[dict[str, int]] = {"train": 4_708, "val": 524, "test": 624}
    traps: ClassVar[tuple[str, ...]] = (
        "rows of arrays instead of files",
        "Kermany's images without their names",
    )


def _read_labels(file: Path, name: str, width: int) -> NDArray[np.float32]:
    """Return an array of labels (n, width)."""
    try:
        # Alone, since the arrays of the images are large.
        with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
            labels: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    except KeyError:
        raise InputError(
            f"{file} has no array {name!r}: is it the archive of another release?"
        ) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{file} cannot be read as an .npz archive: {error}") from error
    if labels.ndim != 2 or labels.shape[1] != width or not np.isin(labels, (0, 1)).all():
        raise InputError(
            f"{file}: the array {name!r} of shape {labels.shape} should hold 0 and 1 for each of "
            f"{width} findings: is it the archive of another release?"
        )
    return labels.astype(np.float32)

"""Small images with labels, masks, reports and patients, and an index of them."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.views import SupervisedView
from cxrssl.views.targets import Targets

SIDE = 24
SPLITS = (24, 6, 6)
N = sum(SPLITS)
FINDINGS = ("nodule", "edema")

# Labels of a finding of which some images are not labelled, and the others.
UNLABELLED = [np.nan if number in (1, 2, 25, 31) else number % 2 for number in range(N)]
LABELLED = [number for number in range(N) if number not in (1, 2, 25, 31)]

BROKEN = b"\x89PNG\r\n\x1a\n but nothing else"


def square(number: int) -> np.ndarray:
    """Return the mask (H, W) of an image: a square, elsewhere in each."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    row, column = 2 + number % 5, 3 + number % 7
    mask[row : row + 10, column : column + 9] = 1
    return mask


def write_labelled(folder: Path, **columns) -> pd.DataFrame:
    """Write images of bright squares, masks of them and an index; return its table.

    Image i has the grey level i beside the square, the labels i % 2 and i % 3 == 0, and the report
    "Image i." Of three images one patient has two. The index is ``folder / "index.csv"``.

    Args:
        folder: Where all is written.
        columns: Columns that replace those of the table.
    """
    rows = []
    for number in range(N):
        mask = square(number)
        image = np.where(mask == 1, 255, number).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
        cv2.imwrite(str(folder / f"{number:03d}_heart.png"), 255 * mask)
        rows.append(
            {
                "path": f"{number:03d}.png",
                "patient_id": f"p{number - number % 3 % 2}",
                "nodule": number % 2,
                "edema": int(number % 3 == 0),
                "text": f"Image {number}.",
                "mask/heart": f"{number:03d}_heart.png",
            }
        )
    table = pd.DataFrame(rows).assign(split=np.repeat(["train", "val", "test"], SPLITS), **columns)
    table.to_csv(folder / "index.csv", index=False)
    return table


def views(findings=(), structures=(), text=False, **options) -> SupervisedView:
    """Return random views of 16 pixels with targets."""
    made = SupervisedView(image_size=16, **options)
    made.targets = Targets(tuple(findings), tuple(structures), text)
    return made


def data_module(folder, targets=FINDINGS, **options) -> CXRDataModule:
    """Return the images of a folder with labels as targets, four in a batch."""
    defaults = {"views": views(targets), "batch_size": 4, "num_workers": 0, "seed": 5}
    return CXRDataModule(str(folder / "index.csv"), **(defaults | options))


def names(rows: pd.DataFrame) -> list[int]:
    """Return which images rows are of."""
    return [int(path[-7:-4]) for path in rows["path"]]


def rows_of(batches, name: str) -> torch.Tensor:
    """Return an entry of all batches together."""
    return torch.cat([batch[name] for batch in batches])

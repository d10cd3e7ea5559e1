"""Object-CXR."""

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.boxes import Box, boxes_by_image
from cxrssl.data.releases.files import find_file, find_files, find_optional, find_under, locate
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import read_table
from cxrssl.data.runs import EMPTY
from cxrssl.data.targets import MaskRules
from cxrssl.errors import InputError

__all__ = ["ObjectCXR"]

_FINDING = "foreign object"
_SPLITS = {"train": "train", "dev": "test"}
_NAMES = ("image_name", "image_path")
_CORNERS = 64
"""Corners of the polygon of an ellipse: of one 600 pixels long, it is a third of a pixel off."""


class _Shape(NamedTuple):
    """What an annotation draws.

    Attributes:
        box: left, top, right and bottom.
        corners: Corners (n, 2) of its polygon.
    """

    box: tuple[float, float, float, float]
    corners: NDArray[np.float64]


class ObjectCXR(Release):
    """Object-CXR (JF Healthcare, 2020): frontal radiographs, half of them with foreign objects.

    Reads ``train.csv`` and ``dev.csv``, whose images are the official training and test images
    here: those of the challenge's test set have no public labels. Rectangles, ellipses and polygons
    become boxes and masks, in pixels of the images of the release: they do not fit resized copies.
    Support devices, and objects outside the lungs, were not annotated. See `Release` for the
    arguments.
    """

    title: ClassVar[str] = "Object-CXR"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "objectcxr"
    findings: ClassVar[tuple[str, ...]] = (_FINDING,)
    structures_of_masks: ClassVar[tuple[str, ...]] = (_FINDING,)
    mask_format: ClassVar[MaskRules] = MaskRules(format="polygon")
    counts: ClassVar[dict[str, int]] = {"images": 9_000, "test": 1_000}
    traps: ClassVar[tuple[str, ...]] = (
        "the column of names has two names",
        "names with a folder or without",
        "three shapes in one cell",
        "blank where there is no object",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the tables."""
        find_file(root, *(f"**/{name}.csv" for name in _SPLITS), release=self.title)
        parts = [
            self._part(name, file)
            for name in _SPLITS
            if (file := find_optional(root, f"{name}.csv", f"**/{name}.csv")) is not None
        ]
        return pd.concat(parts, ignore_index=True)

    def _part(self, name: str, file: Path) -> pd.DataFrame:
        table = read_table(file, ("annotation",))
        column = next((column for column in _NAMES if column in table), None)
        if column is None:
            raise InputError(f"{file} has neither a column {' nor '.join(map(repr, _NAMES))}")
        # Both parts number their images from 1 on: each is looked for in its own folder.
        images = Path(self.images_root)
        found = find_under(images, f"**/{name}") or find_files(images)
        files = table[column].str.strip().str.replace("\\", "/").str.split("/").str[-1]
        texts = table["annotation"].str.strip()
        shapes = [_shapes(text, file, row) for row, text in enumerate(texts)]
        keys = name + "/" + files.map(lambda key: Path(key).stem)
        boxes = {
            key: [Box(_FINDING, *shape.box) for shape in drawn]
            for key, drawn in zip(keys, shapes, strict=True)
        }
        return pd.DataFrame(
            {
                "path": locate(files, found),
                "image": keys,
                "split": _SPLITS[name],
                "boxes": boxes_by_image(boxes, keys),
                f"mask/{_FINDING}": [_polygons(drawn) for drawn in shapes],
                _FINDING: [float(bool(drawn)) for drawn in shapes],
            }
        )


def _shapes(text: str, file: Path, row: int) -> list[_Shape]:
    """Return the shapes of a cell such as ``0 10 20 30 40;2 1 1 5 1 5 5``."""
    shapes = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        kind, *words = part.split()
        try:
            points = np.array(words, dtype=np.float64).reshape(-1, 2)
            enough = len(points) >= 3 if kind == "2" else len(points) == 2
        except ValueError:
            enough = False
        if kind not in ("0", "1", "2") or not enough or not np.isfinite(points).all():
            raise InputError(
                f"{file}: the annotation in row {row + 1} has {part!r}, which is neither a "
                "rectangle (0 x1 y1 x2 y2), an ellipse (1 x1 y1 x2 y2) nor a polygon "
                "(2 x1 y1 x2 y2 x3 y3 ...)"
            )
        shapes.append(_shape(kind, points))
    return shapes


def _shape(kind: str, points: NDArray[np.float64]) -> _Shape:
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if kind == "0":
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    elif kind == "1":
        angles = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        points = (points[0] + points[1]) / 2 + circle * (points[1] - points[0]) / 2
    return _Shape((left, top, right, bottom), points)


def _polygons(shapes: list[_Shape]) -> str:
    texts = (" ".join(f"{number:.1f}" for number in shape.corners.flat) for shape in shapes)
    return "|".join(texts) or EMPTY

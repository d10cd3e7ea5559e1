"""Points in radiographs with names, from a table."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxrssl.data import CXRDataModule
from cxrssl.data.subsets import image_names
from cxrssl.errors import InputError
from cxrssl.views import EvalView

__all__ = ["Landmarks", "in_view", "read_landmarks"]

_COLUMNS = ("image", "name", "x", "y")


@dataclass(frozen=True)
class Landmarks:
    """Named points of some images of an index.

    Attributes:
        rows: Rows of the m images.
        points: For each image, name to x and y in pixels of the original image.
    """

    rows: pd.DataFrame
    points: list[dict[str, tuple[float, float]]]

    @property
    def names(self) -> list[str]:
        """All names, in the order of the table."""
        return list(dict.fromkeys(name for points in self.points for name in points))


def read_landmarks(path: str, data: CXRDataModule, most: int) -> Landmarks:
    """Return the landmarks of the first images of a table.

    Args:
        path: See :class:`~cxrssl.reporting.options.ReportOptions`.
        data: Whose images they are in.
        most: Images that are taken.

    Raises:
        InputError: If the table cannot be read, lacks a column, names an image that is not in the
            index, or a coordinate is no number.
    """
    try:
        table = pd.read_csv(path, dtype="string")
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no CSV file of landmarks: {error}") from error
    lacking = [name for name in _COLUMNS if name not in table]
    if lacking or table.empty:
        raise InputError(
            f"{path} must have the columns {', '.join(_COLUMNS)} and a row for each landmark; "
            f"{'it lacks ' + ', '.join(lacking) if lacking else 'it has none'}"
        )
    places = _places(table, path, data)
    numbers = table[["x", "y"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    for row in np.flatnonzero(~np.isfinite(numbers).all(1)):
        raise InputError(f"{path}: x or y is no number in row {row + 1}")
    order = list(dict.fromkeys(places))[:most]
    points: dict[int, dict[str, tuple[float, float]]] = {place: {} for place in order}
    for place, name, (x, y) in zip(places, table["name"].tolist(), numbers.tolist(), strict=True):
        if place in points:
            points[place][str(name)] = (x, y)
    return Landmarks(data.index.iloc[order], list(points.values()))


def in_view(
    point: tuple[float, float], shape: tuple[int, int], view: EvalView
) -> tuple[float, float] | None:
    """Return a point as shares of the square that an encoder sees, None where it is outside.

    Args:
        point: x and y in pixels of the original image.
        shape: Its height and width.
        view: What is seen.
    """
    shares = []
    for place, length in zip(point, shape[::-1], strict=True):
        resized = length * view.resize // min(shape)
        first = round((resized - view.image_size) / 2)
        shares.append((place / length * resized - first) / view.image_size)
    inside = all(0 <= share < 1 for share in shares)
    return (shares[0], shares[1]) if inside else None


def _places(table: pd.DataFrame, path: str, data: CXRDataModule) -> list[int]:
    """Return the place in the index of each landmark's image."""
    index = data.index
    by_name = {name: place for place, name in enumerate(image_names(index, data.image_folder))}
    by_name |= {str(name): place for place, name in enumerate(index["path"])}
    places = []
    for row, name in enumerate(table["image"].tolist()):
        place = by_name.get(str(name))
        if place is None and str(name).isdigit() and 1 <= int(name) <= len(index):
            place = int(name) - 1
        if place is None:
            raise InputError(
                f"{path}: the index has no image {name!r} (row {row + 1}): give its path as the "
                f"index has it, or a number from 1 to {len(index)}"
            )
        places.append(place)
    return places

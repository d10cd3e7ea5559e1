"""What several readers said of an image, brought to one label and one list of boxes."""

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from cxrssl.data.releases.boxes import Box
from cxrssl.data.releases.fusion import fuse_boxes
from cxrssl.data.releases.tables import labels_of_columns
from cxrssl.errors import InputError

__all__ = [
    "BoxRule",
    "ReaderRule",
    "agree",
    "boxes_of_rows",
    "check_rules",
    "refuse_unknown",
    "votes_of_columns",
    "votes_of_rows",
]

Column: TypeAlias = "pd.Series[Any]"

ReaderRule = Literal["majority", "any", "all"]
BoxRule = Literal["readers", "fused"]

NOTHING = "No finding"
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def check_rules(readers: str, boxes: str) -> None:
    """Refuse rules that are none.

    Raises:
        InputError: If one is neither of `ReaderRule` nor of `BoxRule`, respectively.
    """
    for name, value, rule in (("readers", readers, ReaderRule), ("boxes", boxes, BoxRule)):
        if value not in get_args(rule):
            raise InputError(f"{name} must be one of {', '.join(get_args(rule))}, got {value!r}")


def votes_of_columns(
    table: pd.DataFrame, findings: Sequence[str], file: str | os.PathLike[str]
) -> pd.DataFrame:
    """Return the votes of a table with a row for each image and reader, a column for each finding.

    Args:
        table: Table of text, with a column ``image_id``.
        findings: The columns.
        file: The table's file, for messages.

    Returns:
        1, 0 or NaN, with the image as index.

    Raises:
        InputError: If a vote is anything else.
    """
    votes = labels_of_columns(table, findings, file)
    rows, columns = np.nonzero(votes.to_numpy() < 0)
    if rows.size:
        raise InputError(
            f"{file}: {findings[columns[0]]!r} is {table[findings[columns[0]]].iloc[rows[0]]!r} "
            f"in row {rows[0] + 1}; a reader says 1 or 0"
        )
    return votes.set_axis(table["image_id"])


def votes_of_rows(table: pd.DataFrame, findings: Sequence[str]) -> pd.DataFrame:
    """Return the votes of a table with a row for each image, reader and finding that was there.

    Args:
        table: Table of text, with columns ``image_id``, ``rad_id`` and ``class_name``.
        findings: The classes, all that there are.

    Returns:
        1 or 0, a row for each image and reader, with the image as index.
    """
    keys = ["image_id", "rad_id"]
    pairs = table[keys].drop_duplicates()
    votes = np.zeros((len(pairs), len(findings)), dtype=np.float32)
    places = table["class_name"].map({name: place for place, name in enumerate(findings)})
    votes[table.groupby(keys, sort=False).ngroup(), places] = 1
    return pd.DataFrame(votes, index=pd.Index(pairs["image_id"]), columns=list(findings))


def agree(votes: pd.DataFrame, rule: ReaderRule) -> pd.DataFrame:
    """Return one label per image: 1 where more than half, any or all of its readers voted so.

    Args:
        votes: Votes 1, 0 or NaN, with the image as index.
        rule: Which of these. One reader alone is all three.

    Returns:
        1, 0, or NaN where nobody voted, float32, by the image in order of appearance.
    """
    shares = votes.groupby(level=0, sort=False).mean()
    held = {"majority": shares > 0.5, "any": shares > 0, "all": shares == 1}[rule]
    labels: pd.DataFrame = held.astype("float32").where(shares.notna())
    return labels


def boxes_of_rows(
    table: pd.DataFrame, classes: Sequence[str], file: str | os.PathLike[str], rule: BoxRule
) -> dict[str, list[Box]]:
    """Return the boxes by image of a table with a row for each.

    Rows of ``No finding`` are no boxes, whatever stands in their corners. Boxes without a reader
    were agreed on before and are never fused.

    Args:
        table: Table of text, with columns ``image_id``, ``class_name``, the corners ``x_min`` and
            so on, and ``rad_id`` where readers are known.
        classes: What a box may be of.
        file: The table's file, for messages.
        rule: Whether the box of each reader stays, with their name, or they are fused.

    Raises:
        InputError: If a class is not one of these, or a corner of a box is no number.
    """
    refuse_unknown(table["class_name"], (*classes, NOTHING), file)
    rows = table[table["class_name"] != NOTHING]
    corners = pd.DataFrame({name: _numbers(rows[name], file) for name in _CORNERS})
    readers = rows["rad_id"] if "rad_id" in rows else [None] * len(rows)
    boxes: dict[str, list[Box]] = {}
    named = zip(rows["image_id"], rows["class_name"], readers, strict=True)
    for (image, name, reader), sides in zip(named, corners.to_numpy().tolist(), strict=True):
        left, top, right, bottom = map(float, sides)
        box = Box(name, left, top, right, bottom, reader or None)
        boxes.setdefault(image, []).append(box)
    if rule == "fused" and "rad_id" in rows:
        boxes = {image: fuse_boxes(drawn) for image, drawn in boxes.items()}
    return boxes


def refuse_unknown(column: Column, known: Sequence[str], file: str | os.PathLike[str]) -> None:
    """Refuse a name that a release does not know.

    Raises:
        InputError: If there is one; it says the file, the row, the column and what is known.
    """
    wrong = np.flatnonzero(~column.isin(list(known)))
    if wrong.size:
        raise InputError(
            f"{file}: {column.name!r} is {column.iloc[wrong[0]]!r} in row {wrong[0] + 1}; it is "
            f"one of {', '.join(known)}"
        )


def _numbers(column: Column, file: str | os.PathLike[str]) -> Column:
    values = pd.to_numeric(column.str.strip(), errors="coerce")
    wrong = np.flatnonzero(values.isna())
    if wrong.size:
        raise InputError(
            f"{file}: {column.name!r} is {column.iloc[wrong[0]]!r} in row "
            f"{column.index[wrong[0]] + 1}; a box has four numbers"
        )
    return values

"""Masks that tables spread over several rows: run lengths of one region in each."""

import os
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cxrssl.data.runs import EMPTY
from cxrssl.errors import InputError

__all__ = ["join_regions"]

Column: TypeAlias = "pd.Series[Any]"


def join_regions(images: Column, runs: Column, file: str | os.PathLike[str]) -> Column:
    """Return one text of runs per image, in which `decode_runs` unites the regions of its rows.

    Args:
        images: Name (n,) of the image of each row.
        runs: Run lengths (n,) of a region, ``-1`` where there is none, blank where nothing is said.
        file: The table's file, for messages.

    Returns:
        Text by image in order of appearance: regions separated by ``|``, ``-1`` where no row has a
        region, missing where all rows are blank.

    Raises:
        InputError: If something else stands in a row.
    """
    texts = runs.str.strip()
    wrong = np.flatnonzero(~texts.str.fullmatch(r"(?:-1|\d+(?:\s+\d+)*)?"))
    if wrong.size:
        raise InputError(
            f"{file}: {runs.name!r} is {texts.iloc[wrong[0]][:40]!r} in row {wrong[0] + 1}; runs "
            f"are pairs of numbers, {EMPTY} or blank"
        )
    joined = pd.Series(pd.NA, index=pd.Index(images.unique()), dtype="string")
    joined[images[texts != ""].unique()] = EMPTY
    regions = texts[~texts.isin(["", EMPTY])]
    if len(regions):
        united = regions.groupby(images[regions.index], sort=False).agg("|".join)
        joined[united.index] = united.astype("string")
    return joined

"""The three measures of a world model together, and in one table."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.world_domain import (
    DomainSensitivity,
    VersionsAlikeError,
    domain_sensitivity,
)
from cxrssl.analysis.world_layout import LayoutAwareness, layout_awareness
from cxrssl.analysis.world_local import LocalStructure, local_structure
from cxrssl.analysis.world_model import PredictsWorld

__all__ = ["WorldMeasures", "measure_world", "world_headlines", "world_scalars", "world_table"]

_HEADLINES = ("recall@1", "top-1")
_WITH_GAIN = (*_HEADLINES, "error")
_LOGGED = (*_WITH_GAIN, "recall@3", "recall@5", "top-5", "patch distance")
_TOLD = {"domain": "true action", "layout": "offset", "local": "masked"}
_GAIN = {
    "domain": "true action minus other action",
    "layout": "offset minus other image",
    "local": "masked minus other image",
}


class WorldMeasures(NamedTuple):
    """What a world model knows; ``domain`` is None where its views make no versions of an image."""

    domain: DomainSensitivity | None
    layout: LayoutAwareness
    local: LocalStructure


def measure_world(
    model: PredictsWorld,
    images: Sequence[NDArray[np.uint8]],
    *,
    candidates: int = 64,
    pairs: int = 4,
    seed: int = 0,
    batch_size: int = 64,
    after_image: Callable[[int], None] | None = None,
    without_domain: Callable[[str], None] | None = None,
) -> WorldMeasures:
    """Return domain sensitivity, layout awareness and local structure of a model.

    Args:
        model: In evaluation mode.
        images: At least two, (H, W) uint8 each.
        candidates: Versions of an image that domain sensitivity tells apart.
        pairs: Pairs of crops of an image that layout awareness predicts from each other.
        seed: Seed of all draws.
        batch_size: Views in one pass of the model.
        after_image: Told after each image of domain sensitivity how many are done.
        without_domain: Told why domain sensitivity cannot be measured.

    Raises:
        InputError: If there are too few images.
    """
    domain = None
    try:
        domain = domain_sensitivity(
            model,
            images,
            candidates=candidates,
            seed=seed,
            batch_size=batch_size,
            after_image=after_image,
        )
    except VersionsAlikeError as error:
        if without_domain is not None:
            without_domain(str(error))
    return WorldMeasures(
        domain,
        layout_awareness(model, images, pairs=pairs, seed=seed, batch_size=batch_size),
        local_structure(model, images, seed=seed),
    )


def world_table(
    domain: DomainSensitivity | None, layout: LayoutAwareness, local: LocalStructure
) -> pd.DataFrame:
    """Return one row for each task, condition and measure, with a 95 % interval and chance.

    Columns: task, condition, measure, value, low, high, chance, images. An interval needs five
    images. The chance of an error is that of the mean of all tokens, and the chance of a difference
    between two conditions, named ``a minus b``, is 0.

    Args:
        domain: None where it could not be measured.
        layout: What was measured.
        local: What was measured.
    """
    parts = [part.table() for part in (domain, layout, local) if part is not None]
    return pd.concat(parts, ignore_index=True)


def world_headlines(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a `world_table` to read first: how often the right one was found."""
    return table[table["measure"].isin(_HEADLINES)]


def world_scalars(table: pd.DataFrame) -> dict[str, float]:
    """Return the main scores of a `world_table` under ``<task>/<measure>``.

    They are of the model that is told all it was trained to use. Those of recall@1, top-1 and error
    have a ``<task>/<measure>/gain``, the difference to what is predicted from another image or, for
    domain, with another action; and, where there are images enough, its 95 % interval under
    ``.../gain_low`` and ``.../gain_high``.
    """
    told = table[table["condition"].eq(table["task"].map(_TOLD))]
    told = told[told["measure"].isin(_LOGGED)]
    gain = table[table["condition"].eq(table["task"].map(_GAIN))]
    gain = gain[gain["measure"].isin(_WITH_GAIN)]
    columns = {
        "": told["value"],
        "/gain": gain["value"],
        "/gain_low": gain["low"].dropna(),
        "/gain_high": gain["high"].dropna(),
    }
    names = table["task"] + "/" + table["measure"].str.replace(" ", "_")
    return {
        name + suffix: float(value)
        for suffix, values in columns.items()
        for name, value in zip(names[values.index], values, strict=True)
    }

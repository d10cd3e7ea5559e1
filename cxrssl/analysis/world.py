"""The three measures of a world model in one table."""

import pandas as pd

from cxrssl.analysis.world_domain import DomainSensitivity
from cxrssl.analysis.world_layout import LayoutAwareness
from cxrssl.analysis.world_local import LocalStructure

__all__ = ["world_headlines", "world_scalars", "world_table"]

_HEADLINES = ("recall@1", "top-1")
_WITH_GAIN = (*_HEADLINES, "error")
_LOGGED = (*_WITH_GAIN, "recall@3", "recall@5", "top-5", "patch distance")
_TOLD = {"domain": "true action", "layout": "offset", "local": "masked"}
_GAIN = {
    "domain": "true action minus other action",
    "layout": "offset minus other image",
    "local": "masked minus other image",
}


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

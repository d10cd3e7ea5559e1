"""The three measures of a world model in one table."""

import pandas as pd

from cxrssl.analysis.world_domain import DomainSensitivity
from cxrssl.analysis.world_layout import LayoutAwareness
from cxrssl.analysis.world_local import LocalStructure

__all__ = ["world_table"]


def world_table(
    domain: DomainSensitivity, layout: LayoutAwareness, local: LocalStructure
) -> pd.DataFrame:
    """Return one row for each task, condition and measure, with a 95 % interval and chance.

    Columns: task, condition, measure, value, low, high, chance. The chance of an error is the
    error of the best constant prediction.
    """
    return pd.concat([domain.table(), layout.table(), local.table()], ignore_index=True)

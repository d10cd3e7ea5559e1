"""The three measures of a world model in one table."""

import pandas as pd

from cxrssl.analysis.world_domain import DomainSensitivity
from cxrssl.analysis.world_layout import LayoutAwareness
from cxrssl.analysis.world_local import LocalStructure

__all__ = ["world_table"]


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

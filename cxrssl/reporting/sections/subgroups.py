"""Scores of subgroups of the test patients."""

from functools import partial

import pandas as pd

from cxrssl.analysis.evaluation_figures import plot_score
from cxrssl.reporting.content import Charts, Fold, Missing, Part, Picture, Section, Table
from cxrssl.reporting.pictures import chart
from cxrssl.reporting.sections.probes import METRICS, preferred_method
from cxrssl.reporting.subjects import Topic
from cxrssl.reporting.text import with_interval

__all__ = ["subgroups_section"]


def subgroups_section(topic: Topic) -> Section:
    """Return scores by sex, age, view and dataset, as far as the index knows them."""
    table = topic.results.subgroups
    lead = (
        "The same classifiers, scored on one group of test patients at a time. Means over findings "
        "are comparable between groups that show the same findings; small groups have wide "
        "intervals."
    )
    if table.empty:
        reason = (
            "Not shown: the index does not divide its test images by sex, age, view or dataset."
        )
        return Section("subgroups", "Subgroups", lead, [Part([Missing(reason)])])
    table = table[table["method"] == preferred_method(topic)]
    charts = [_chart(rows, str(group)) for group, rows in table.groupby("group", sort=False)]
    return Section(
        "subgroups",
        "Subgroups",
        lead,
        [Part([Charts(charts), Fold("All findings of all groups", [_table(table)])])],
    )


def _chart(rows: pd.DataFrame, group: str) -> Picture:
    """Return the macro AUROC of each value of a group, or of a single finding that all have."""
    shown = rows[rows["finding"] == "macro"]
    shown = shown.assign(finding=shown["value_of_group"].astype(str), series=shown["encoder"])
    height = 1.0 + (0.2 + 0.16 * shown["series"].nunique()) * shown["finding"].nunique()
    return chart(
        partial(plot_score, shown, "auroc"),
        f"Macro AUROC by {group} with 95 % intervals.",
        f"Macro AUROC by {group}, {_counts(rows)}",
        width=4.0,
        height=height,
    )


def _counts(rows: pd.DataFrame) -> str:
    """Return how many images each value of a group has."""
    macro = rows[(rows["finding"] == "macro") & (rows["metric"] == "auroc")]
    images = macro.drop_duplicates("value_of_group").set_index("value_of_group")["images"]
    return ", ".join(f"{value} {n:,}" for value, n in images.items()) + " images"


def _table(table: pd.DataFrame) -> Table:
    several = table["encoder"].nunique() > 1
    rows = []
    shown = table[table["metric"].isin(("auroc", "auprc"))]
    for (group, value, finding), block in shown.groupby(
        ["group", "value_of_group", "finding"], sort=False
    ):
        for encoder, of in block.groupby("encoder", sort=False):
            by_metric = of.set_index("metric").to_dict("index")
            first = of.iloc[0]
            rows.append(
                [
                    f"{group} {value}",
                    *([str(encoder)] if several else []),
                    str(finding).replace("_", " "),
                    f"{first['positives']:,} / {first['images']:,}",
                    *(with_interval(by_metric[metric]) for metric in ("auroc", "auprc")),
                ]
            )
    columns = ["Group", *(["Encoder"] if several else []), "Finding", "Positives"]
    columns += [METRICS[metric] for metric in ("auroc", "auprc")]
    return Table(columns, rows, "All findings of all groups, with 95 % intervals")

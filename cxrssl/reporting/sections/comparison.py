"""How two encoders differ, with paired tests."""

from functools import partial
from typing import Any

from cxrssl.analysis.evaluation_figures import plot_differences
from cxrssl.reporting.content import Charts, Part, Section, Table
from cxrssl.reporting.pictures import chart
from cxrssl.reporting.sections.probes import METRICS, method_name, preferred_method
from cxrssl.reporting.subjects import Topic
from cxrssl.reporting.text import count, p_value, with_interval

__all__ = ["comparison_section"]


def comparison_section(topic: Topic) -> Section | None:
    """Return paired differences of two encoders; None where there is one."""
    if len(topic.subjects) < 2:
        return None
    method = preferred_method(topic)
    table = topic.results.comparison
    table = table[table["method"] == method]
    first, second = (subject.name for subject in topic.subjects)
    charts = [
        chart(
            partial(plot_differences, table, metric),
            f"Differences in {METRICS[metric]} between {first} and {second} with 95 % intervals.",
            width=5.0,
            height=0.9 + 0.26 * table["finding"].nunique(),
        )
        for metric in ("auroc", "auprc")
    ]
    rows = [_row(row) for row in table.to_dict("records")]
    patients = topic.results.description["data"]["patients"]["test"]
    tests = int((table["finding"] != "macro").sum())
    return Section(
        "comparison",
        f"{first} against {second}",
        f"Differences ({first} minus {second}) of {method_name(topic)} on the same resamples of "
        f"{count(patients, 'test patient')}. An interval without zero speaks for a difference; of "
        f"{count(tests, 'test')} of single findings, one in twenty does by chance.",
        [
            Part(
                [
                    Charts(charts, "wide"),
                    Table(
                        ["Finding", "Metric", first, second, "Difference", "p, bootstrap",
                         "p, DeLong", "Positives"],
                        rows,
                        "Paired differences with 95 % intervals. The bootstrap honours patients, "
                        "DeLong's test does not.",
                    ),
                ]
            )
        ],
    )  # fmt: skip


def _row(row: dict[Any, Any]) -> list[str]:
    return [
        row["finding"].replace("_", " "),
        METRICS[row["metric"]],
        f"{row['first']:.3f}",
        f"{row['second']:.3f}",
        with_interval(row, "difference", "+.3f"),
        p_value(row["p_bootstrap"]),
        p_value(row["p_delong"]),
        f"{row['positives']:,} / {row['images']:,}",
    ]

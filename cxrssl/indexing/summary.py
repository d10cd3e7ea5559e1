"""What an index holds, in a few lines."""

from collections.abc import Mapping, Sequence

import pandas as pd

from cxrssl.data.releases.verify import Difference, measure
from cxrssl.data.validate import MASK, SPLITS, label_names

__all__ = ["differences_table", "index_summary"]

_MOST = 40
"""Findings that are listed; PadChest has several times as many."""


def index_summary(index: pd.DataFrame) -> str:
    """Return images, patients, splits, views and positive images of each finding, as text."""
    counts = measure(index)
    unknown = int(index["patient_id"].isna().sum())
    patients = f" of {counts['patients']:,} patients" if counts["patients"] else ""
    lines = [f"{counts['images']:,} images{patients}"]
    if unknown:
        lines[0] += f", {unknown:,} without a patient"
    lines.append(_listed({name: counts[name] for name in SPLITS}))
    views = index["view_position"].fillna("unknown").value_counts()
    lines.append("views: " + _listed({str(name): int(number) for name, number in views.items()}))
    if "boxes" in counts:
        lines.append(f"boxes: {counts['boxes']:,} on {counts['images with boxes']:,} images")
    masks = {name.removeprefix(MASK): n for name, n in counts.items() if name.startswith(MASK)}
    if masks:
        lines.append(f"masks: {_listed(masks)}")
    if "reports" in counts:
        lines.append(f"reports: {counts['reports']:,}")
    findings = {name: counts[name] for name in label_names(index)}
    if findings:
        often = dict(sorted(findings.items(), key=lambda item: -item[1])[:_MOST])
        more = f" and {len(findings) - _MOST} more" if len(findings) > _MOST else ""
        lines.append(f"positive: {_listed(often)}{more}")
    return "\n".join(lines)


def differences_table(expected: Mapping[str, int], differences: Sequence[Difference]) -> str:
    """Return in words how an index differs from a whole release."""
    if not differences:
        return f"Verified: all {len(expected)} published counts agree."
    lines = [f"{len(differences)} of {len(expected)} published counts differ (published, here):"]
    return "\n".join(
        lines + [f"  {what}: {wanted:,}, {there:,}" for what, wanted, there in differences]
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())

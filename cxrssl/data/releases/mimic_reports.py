"""Findings of the reports of MIMIC-CXR."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from cxrssl.data.releases.files import find_optional
from cxrssl.data.releases.tables import read_table
from cxrssl.errors import InputError

__all__ = ["findings_of_report", "mimic_reports"]

Column: TypeAlias = "pd.Series[Any]"

_THREADS = 16
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z ,/&()-]+):", re.MULTILINE)
"""A section begins with a line whose first words are capitals and end with a colon."""


def findings_of_report(report: str) -> str | None:
    """Return the section FINDINGS of a report in one line, None if it has none."""
    parts = _HEADING.split(report)
    sections = zip(parts[1::2], parts[2::2], strict=True)
    texts = (" ".join(text.split()) for heading, text in sections if "FINDINGS" in heading)
    return next((text for text in texts if text), None)


def mimic_reports(source: Path, patients: Column, studies: Column) -> Column:
    """Return the findings (n,) of the reports of studies, missing where there are none.

    Args:
        source: Folder that ``mimic-cxr-reports.zip`` unpacks to, with a text file for each study;
            or the table of sections made from it, with the columns ``study`` and ``findings``.
        patients: `subject_id` (n,) of each study.
        studies: `study_id` (n,); a study may repeat.

    Raises:
        InputError: If the source has none of the reports.
    """
    owners = dict(zip(studies, patients, strict=True))
    found = _of_table(source) if source.is_file() else _of_folder(source, owners)
    if found.keys().isdisjoint(owners):
        raise InputError(
            f"{source} has no report of these studies: give the folder that holds files/p10/... of "
            "mimic-cxr-reports.zip, or a table with the columns study and findings"
        )
    return studies.map(found).astype("string")


def _of_table(file: Path) -> dict[str, str]:
    table = read_table(file, ("study", "findings"))
    text = table["findings"].str.split().str.join(" ")
    return dict(zip(table["study"].str.strip().str.removeprefix("s"), text, strict=True))


def _of_folder(folder: Path, owners: dict[str, str]) -> dict[str, str]:
    """Return findings by study; reports without any are left out."""
    top = find_optional(folder, "files", "*/files") or folder

    def read(study: str) -> str | None:
        patient = owners[study]
        file = top / f"p{patient[:2]}" / f"p{patient}" / f"s{study}.txt"
        try:
            return findings_of_report(file.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return None

    with ThreadPoolExecutor(_THREADS) as pool:
        texts = pool.map(read, owners)
        return {study: text for study, text in zip(owners, texts, strict=True) if text}

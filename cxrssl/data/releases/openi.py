"""Indiana University's chest radiographs, as Open-i and Kaggle have them."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, NamedTuple
from xml.etree import ElementTree

import pandas as pd

from cxrssl.data.releases.fields import view_positions
from cxrssl.data.releases.files import find_file, find_files, locate
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import labels_of_lists, read_table
from cxrssl.errors import InputError

__all__ = ["OPENI_FINDINGS", "OpenI"]

OPENI_FINDINGS = (
    "normal", "Cardiomegaly", "Pulmonary Atelectasis", "Pleural Effusion", "Pneumothorax",
    "Consolidation", "Infiltrate", "Airspace Disease", "Opacity", "Pneumonia", "Pulmonary Edema",
    "Pulmonary Congestion", "Emphysema", "Pulmonary Emphysema", "Pulmonary Fibrosis", "Nodule",
    "Mass", "Granuloma", "Calcified Granuloma", "Calcinosis", "Fractures, Bone", "Hernia, Hiatal",
    "Scoliosis",
)  # fmt: skip
_SPELLINGS = {name.lower(): name for name in OPENI_FINDINGS}
_REMARKS = {"no indexing", "technical quality of image unsatisfactory"}
_REPORTS = ("ecgen-radiology/*.xml", "*/ecgen-radiology/*.xml")


class OpenI(Release):
    """Indiana University's chest radiographs (Demner-Fushman et al., JAMIA 2016) with reports.

    Reads the XML reports of Open-i, or else Kaggle's ``indiana_reports.csv`` and
    ``indiana_projections.csv``, and the images anywhere below the folder; both name images and
    studies alike. The labels are the headings that indexers gave the report, without the place or
    degree after a slash, and are those of all its images. The text is the section of findings, in
    which ``XXXX`` stands for what would identify the patient. The release does not say who the
    patients are. Only Kaggle's tells lateral views; of a frontal one it is not known whether it is
    PA or AP. See `Release` for the arguments.
    """

    title: ClassVar[str] = "Indiana University chest X-rays"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "openi"
    findings: ClassVar[tuple[str, ...]] = OPENI_FINDINGS
    counts: ClassVar[dict[str, int]] = {"images": 7_470, "studies": 3_851}
    traps: ClassVar[tuple[str, ...]] = (
        "reports without images or with several",
        "reports without findings",
        "headings with place and degree",
        "studies, not patients",
        "PNG files that may be inverted",
        "names of Open-i or Kaggle",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the reports."""
        first = find_file(root, *_REPORTS, "indiana_reports.csv", release=self.title)
        kaggle = first.suffix == ".csv"
        rows = _rows_of_tables(first) if kaggle else _rows_of_reports(first.parent)
        table = pd.DataFrame(rows, columns=list(_Row._fields))
        lists = [_findings(headings) for headings in table["headings"]]
        frame = pd.DataFrame(
            {
                "path": locate(table["file"], find_files(Path(self.images_root))),
                "image": table["image"],
                "study_id": table["study"],
                "view_position": view_positions(table["view"].astype("string")),
                "text": table["text"],
            }
        )
        frame[list(self.findings)] = labels_of_lists(lists, self.findings)
        return frame.drop_duplicates("image", ignore_index=True)


class _Row(NamedTuple):
    image: str
    file: str
    study: str
    view: str
    text: str
    headings: list[str]


def _findings(headings: Iterable[str]) -> list[str] | None:
    """Return the findings in the headings of a report, None if it was not indexed."""
    names = [heading.partition("/")[0].strip() for heading in headings]
    names = [name for name in names if name and name.lower() not in _REMARKS]
    return [_SPELLINGS.get(name.lower(), name) for name in names] or None


def _rows_of_reports(folder: Path) -> list[_Row]:
    rows = []
    for file in sorted(folder.glob("*.xml")):
        report = _parse(file)
        uid = report.find(".//uId")
        study = (uid.get("id") if uid is not None else None) or f"CXR{file.stem}"
        sections = report.iterfind(".//AbstractText[@Label='FINDINGS']")
        text = " ".join("".join(section.itertext()).strip() for section in sections)
        headings = ["".join(major.itertext()) for major in report.iterfind(".//MeSH/major")]
        images = [image.get("id", "").strip() for image in report.iterfind(".//parentImage")]
        rows += [_Row(name, name, study, "", text, headings) for name in images if name]
    return rows


def _parse(file: Path) -> ElementTree.Element:
    """Return the root of a report.

    Reports declare neither types nor entities, with which a small file could fill the memory. As
    text their encoding is fixed, and no declaration can hide in another.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise InputError(
                f"{file} declares a document type or entities, which no report does: get it anew"
            )
        return ElementTree.fromstring(text)
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise InputError(f"{file} cannot be read as a report: {error}") from error


def _rows_of_tables(reports: Path) -> list[_Row]:
    columns = ("uid", "MeSH", "findings")
    said = {
        uid: (headings.split(";"), text)
        for uid, headings, text in _cells(read_table(reports, columns), columns)
    }
    columns = ("uid", "filename", "projection")
    file = reports.with_name("indiana_projections.csv")
    rows = []
    for uid, name, projection in _cells(read_table(file, columns), columns):
        headings, text = said.get(uid, ([], ""))
        stem = name.removesuffix(".png").removesuffix(".dcm")
        view = "" if projection.lower() == "frontal" else projection
        rows.append(
            _Row(
                f"CXR{uid}_{stem.removeprefix(f'{uid}_')}", name, f"CXR{uid}", view, text, headings
            )
        )
    return rows


def _cells(table: pd.DataFrame, columns: tuple[str, str, str]) -> Iterable[tuple[str, str, str]]:
    return zip(*(table[name].str.strip() for name in columns), strict=True)

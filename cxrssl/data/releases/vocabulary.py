"""One vocabulary for the findings of all releases."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["COMMON", "common_name", "to_common"]

_DEVICES = (
    "abnormal foreign body", "artificial aortic heart valve", "artificial heart valve",
    "artificial mitral heart valve", "catheter", "central venous catheter",
    "central venous catheter via jugular vein", "central venous catheter via subclavian vein",
    "central venous catheter via umbilical vein", "chest drain tube", "dai", "double j stent",
    "dual chamber device", "electrical device", "endotracheal tube", "gastrostomy tube",
    "nephrostomy tube", "nsg tube", "pacemaker", "reservoir central venous catheter",
    "single chamber device", "tracheostomy tube", "ventriculoperitoneal drain tube",
)  # fmt: skip

COMMON: dict[str, tuple[str, ...]] = {
    "No Finding": ("no finding", "no findings", "normal"),
    "Atelectasis": (
        "atelectasis", "atelectasis basal", "laminar atelectasis", "lobar atelectasis",
        "pulmonary atelectasis", "round atelectasis", "round(ed) atelectasis",
        "segmental atelectasis", "total atelectasis",
    ),
    "Cardiomegaly": ("cardiomegaly",),
    "Consolidation": ("consolidation",),
    "COVID-19": ("covid", "covid 19", "covid-19", "covid-19 test"),
    "Edema": ("edema", "pulmonary edema"),
    "Emphysema": ("emphysema", "pulmonary emphysema"),
    "Fibrosis": ("fibrosis", "pulmonary fibrosis"),
    "Fracture": (
        "callus rib fracture", "clavicle fracture", "fracture", "fracture old", "fractures, bone",
        "humeral fracture", "rib fracture", "vertebral fracture",
    ),
    "Hernia": ("hernia", "hernia, hiatal", "hiatal hernia"),
    "Infiltration": ("infiltrate", "infiltrates", "infiltration"),
    "Lung Opacity": ("airspace opacity", "lung opacity"),
    "Nodule or Mass": (
        "diffuse nodule", "lung lesion", "mass", "multiple nodules", "nodule", "nodule or mass",
        "nodule/mass", "pulmonary mass",
    ),
    "Pleural Effusion": ("effusion", "loculated pleural effusion", "pleural effusion"),
    "Pleural Thickening": (
        "apical pleural thickening", "pleural", "pleural thickening", "thickened pleura",
    ),
    "Pneumonia": ("atypical pneumonia", "pneumonia"),
    "Pneumothorax": ("pneumothorax",),
    "Support Devices": ("support devices", *_DEVICES),
    "Tuberculosis": ("tb", "tuberculosis"),
}  # fmt: skip
"""Finding of the common vocabulary to the spellings of the releases, in lower case with blanks."""

_NAMES = {spelling: name for name, spellings in COMMON.items() for spelling in spellings}


def common_name(finding: str) -> str | None:
    """Return the common name of a finding in a release's spelling, None if it has none."""
    return _NAMES.get(finding.replace("_", " ").strip().lower())


def to_common(labels: pd.DataFrame, findings: Iterable[str]) -> pd.DataFrame:
    """Return labels of the common vocabulary; findings without a place in it are left out.

    Of findings that become one, such as nodule and mass, a positive one makes it positive, else an
    uncertain one uncertain; it is negative where all of them are, and missing otherwise: what a
    release does not say of an image stays unsaid.

    Args:
        labels: A frame with label columns, 1, 0, -1 or missing.
        findings: Which of its columns are labels.
    """
    groups: dict[str, list[str]] = {}
    for finding in findings:
        if (name := common_name(finding)) is not None:
            groups.setdefault(name, []).append(finding)
    columns = {
        name: _merge(labels[groups[name]].to_numpy(dtype=np.float32))
        for name in COMMON
        if name in groups
    }
    return pd.DataFrame(columns, index=labels.index)


def _merge(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return one label (n,) of several (n, k)."""
    merged = np.where((values == 0).all(axis=1), 0.0, np.nan)
    merged[(values == -1).any(axis=1)] = -1
    merged[(values == 1).any(axis=1)] = 1
    return merged.astype(np.float32)

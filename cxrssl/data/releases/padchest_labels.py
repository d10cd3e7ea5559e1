"""The labels of PadChest, which BIMCV's later collections share."""

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from cxrssl.data.releases.tables import parse_list
from cxrssl.errors import InputError

__all__ = [
    "PADCHEST_DIAGNOSES",
    "PADCHEST_FINDINGS",
    "PADCHEST_LABELS",
    "PADCHEST_REMARKS",
    "judged",
    "label_lists",
]

PADCHEST_FINDINGS = (
    "obesity", "calcified densities", "calcified granuloma", "calcified adenopathy",
    "calcified mediastinal adenopathy", "calcified pleural thickening", "calcified pleural plaques",
    "heart valve calcified", "calcified fibroadenoma", "granuloma", "end on vessel", "adenopathy",
    "nodule", "multiple nodules", "pseudonodule", "nipple shadow", "abscess", "cyst", "cavitation",
    "fibrotic band", "volume loss", "hypoexpansion", "bullas", "pneumothorax", "hydropneumothorax",
    "pneumoperitoneo", "pneumomediastinum", "subcutaneous emphysema", "hyperinflated lung",
    "flattened diaphragm", "lung vascular paucity", "air trapping", "bronchiectasis", "infiltrates",
    "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
    "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern",
    "consolidation", "air bronchogram", "bronchovascular markings", "air fluid level",
    "increased density", "atelectasis", "total atelectasis", "lobar atelectasis",
    "segmental atelectasis", "laminar atelectasis", "round atelectasis", "atelectasis basal",
    "mediastinal shift", "azygos lobe", "fissure thickening", "minor fissure thickening",
    "major fissure thickening", "loculated fissural effusion", "pleural thickening",
    "apical pleural thickening", "pleural plaques", "pleural effusion",
    "loculated pleural effusion", "empyema", "hemothorax", "pleural mass",
    "costophrenic angle blunting", "vascular redistribution", "central vascular redistribution",
    "hilar enlargement", "vascular hilar enlargement", "pulmonary artery enlargement",
    "hilar congestion", "cardiomegaly", "pericardial effusion", "kerley lines", "dextrocardia",
    "right sided aortic arch", "aortic atheromatosis", "aortic elongation",
    "descendent aortic elongation", "ascendent aortic elongation", "aortic button enlargement",
    "supra aortic elongation", "aortic aneurysm", "mediastinal enlargement",
    "superior mediastinal enlargement", "goiter", "mediastinal mass", "hiatal hernia",
    "tracheal shift", "mass", "breast mass", "pulmonary mass", "soft tissue mass",
    "esophagic dilatation", "azygoesophageal recess shift", "mediastinic lipomatosis",
    "thoracic cage deformation", "scoliosis", "kyphosis", "pectum excavatum", "pectum carinatum",
    "cervical rib", "vertebral degenerative changes", "vertebral compression",
    "vertebral anterior compression", "lytic bone lesion", "sclerotic bone lesion",
    "blastic bone lesion", "costochondral junction hypertrophy",
    "sternoclavicular junction hypertrophy", "axial hyperostosis", "osteopenia", "osteoporosis",
    "non axial articular degenerative changes", "subacromial space narrowing", "fracture",
    "clavicle fracture", "humeral fracture", "vertebral fracture", "rib fracture",
    "callus rib fracture", "gynecomastia", "Chilaiditi sign", "hemidiaphragm elevation",
    "diaphragmatic eventration", "tracheostomy tube", "endotracheal tube", "NSG tube",
    "chest drain tube", "ventriculoperitoneal drain tube", "gastrostomy tube", "nephrostomy tube",
    "double J stent", "catheter", "central venous catheter",
    "central venous catheter via subclavian vein", "central venous catheter via jugular vein",
    "reservoir central venous catheter", "central venous catheter via umbilical vein",
    "electrical device", "dual chamber device", "single chamber device", "pacemaker", "dai",
    "artificial heart valve", "artificial mitral heart valve", "artificial aortic heart valve",
    "surgery", "metal", "osteosynthesis material", "sternotomy", "suture material", "bone cement",
    "prosthesis", "humeral prosthesis", "mammary prosthesis", "endoprosthesis",
    "aortic endoprosthesis", "surgery breast", "mastectomy", "surgery neck", "surgery lung",
    "surgery heart", "surgery humeral", "abnormal foreign body", "external foreign body",
)  # fmt: skip
"""Radiological findings, in the order and spelling of PadChest's tree of labels."""

PADCHEST_DIAGNOSES = (
    "pneumonia", "atypical pneumonia", "tuberculosis", "tuberculosis sequelae", "lung metastasis",
    "lymphangitis carcinomatosa", "lepidic adenocarcinoma", "pulmonary fibrosis",
    "post radiotherapy changes", "asbestosis signs", "emphysema", "COPD signs",
    "heart insufficiency", "respiratory distress", "pulmonary hypertension",
    "pulmonary artery hypertension", "pulmonary venous hypertension", "pulmonary edema",
    "bone metastasis",
)  # fmt: skip
"""Differential diagnoses, a tree of their own."""

PADCHEST_LABELS = ("normal", *PADCHEST_FINDINGS, *PADCHEST_DIAGNOSES)

PADCHEST_REMARKS = (
    "unchanged", "chronic changes", "exclude", "suboptimal study", "radiological finding",
)  # fmt: skip
"""Entries of the tree that name nothing in the image."""

_LISTED = 10
_SHOWN = 60

Column: TypeAlias = "pd.Series[Any]"


def label_lists(
    cells: Column, known: Iterable[str], file: Path, *, refuse: bool = True
) -> list[list[str] | None]:
    """Return the labels in each cell in the spelling of the vocabulary, None for an empty cell.

    Labels are stripped and compared without regard to case. Those that the vocabulary lacks stay as
    they are; one warning tells how often each occurs.

    Args:
        cells: Text of Python lists (n,).
        known: The vocabulary.
        file: The table's file, for messages.
        refuse: Whether a cell that is no list is an error, or counts as empty.

    Raises:
        InputError: For the first cell that is no list, if such are refused.
    """
    spellings = {name.lower(): name for name in known}
    parsed: dict[str, list[str] | None] = {}
    for row, cell in enumerate(cells):
        if cell not in parsed:
            names = _parse(cell, row, file, refuse)
            parsed[cell] = names and [spellings.get(name.lower(), name) for name in names]
    lists = [parsed[cell] for cell in cells]
    _warn_of_unknown(lists, set(spellings.values()), file)
    return lists


def judged(lists: Sequence[list[str] | None]) -> list[list[str] | None]:
    """Return the lists with None for those that say nothing of the image.

    That is so of excluded images and where there are remarks only: ``unchanged`` alone leaves open
    what it was before.
    """
    remarks = set(PADCHEST_REMARKS)
    return [
        None if names is None or "exclude" in names or remarks.issuperset(names) else names
        for names in lists
    ]


def _parse(cell: str, row: int, file: Path, refuse: bool) -> list[str] | None:
    try:
        return parse_list(cell)
    except InputError as error:
        if not refuse:
            return None
        raise InputError(f"{file}: the labels in row {row + 1} are no list: {error}") from None


def _warn_of_unknown(lists: Iterable[list[str] | None], known: set[str], file: Path) -> None:
    counts = Counter(name for names in lists for name in names or () if name not in known)
    if not counts:
        return
    listed = ", ".join(
        f"{name[:_SHOWN]!r} ({number} rows)" for name, number in counts.most_common(_LISTED)
    )
    more = ", ..." if len(counts) > _LISTED else ""
    warnings.warn(
        f"{file}: {len(counts)} labels are not in the vocabulary and are left out: {listed}{more}",
        stacklevel=2,
    )

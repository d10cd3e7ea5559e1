"""What a radiologist would write about a drawn radiograph, from templates."""

from collections.abc import Mapping

import numpy as np

__all__ = ["findings_text"]

_PRESENT: Mapping[str, tuple[str, ...]] = {
    "cardiomegaly": ("The heart is enlarged.", "There is cardiomegaly."),
    "effusion": ("There is a pleural effusion.", "Pleural effusion is present."),
    "pneumothorax": ("There is a pneumothorax.", "A pneumothorax is seen."),
    "nodule": ("A pulmonary nodule is seen.", "There is a nodule in the lung."),
    "consolidation": ("There is a consolidation.", "Focal consolidation is present."),
}
_ABSENT: Mapping[str, tuple[str, ...]] = {
    "cardiomegaly": ("The heart size is normal.", "The cardiac silhouette is not enlarged."),
    "effusion": ("There is no pleural effusion.", "No effusion."),
    "pneumothorax": ("There is no pneumothorax.", "No pneumothorax."),
    "nodule": ("No nodule is seen.",),
    "consolidation": ("The lungs are clear of consolidation.", "No focal consolidation."),
}


def findings_text(labels: Mapping[str, int], rng: np.random.Generator) -> str:
    """Return the findings section of a report: a sentence for each finding, in the order given.

    Args:
        labels: 1 or 0 for each finding.
        rng: Chooses among the ways to say it.
    """
    sentences = []
    for name, present in labels.items():
        ways = (_PRESENT if present else _ABSENT)[name]
        sentences.append(ways[rng.integers(len(ways))])
    return " ".join(sentences)

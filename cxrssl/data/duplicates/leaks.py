"""What an index that is trained on gives away of one that is evaluated on."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from cxrssl.data.duplicates.copies import Copies
from cxrssl.data.duplicates.relations import Group, groups, relation

__all__ = ["LEAKS", "Level", "find_leaks", "leak_level", "trained_on"]

LEAKS = ("evaluation", "pretraining", "split", "reason", "distance")
"""Columns of the table of leaks: two paths, the evaluation image's split, why, and in how many bits
perceptual hashes differ, where they were compared."""

_PATIENT = "same patient"


@dataclass(frozen=True)
class Level:
    """How far evaluation images were kept from pretraining.

    Attributes:
        name: ``L0``: evaluation images may have been seen, without labels; ``L1``: none was seen;
            ``L2``: no image of an evaluation patient was seen; ``unknown``: what can be compared
            does not tell.
        images: Evaluation images.
        exposed: Those of them that are in pretraining.
        patients: Those of which only other images of the patient are.
        why: What was compared, or why more cannot be said.
    """

    name: Literal["L0", "L1", "L2", "unknown"]
    images: int
    exposed: int
    patients: int
    why: str

    def __str__(self) -> str:
        seen = f"{self.exposed:,} of {self.images:,} evaluation images are in pretraining"
        if self.name == "L0":
            return f"L0 ({seen}; {self.why})"
        patients = f"{self.patients:,} of {self.images:,} images are of patients in pretraining; "
        return {
            "L1": f"L1 (no evaluation image in pretraining; {patients * bool(self.patients)}",
            "L2": "L2 (no evaluation patient in pretraining; ",
            "unknown": f"unknown ({f'{patients}' * bool(self.patients)}",
        }[self.name] + f"{self.why})"


def trained_on(index: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that an index has to train on: its training split, or all without splits."""
    return index if index["split"].isna().all() else index[index["split"] == "train"]


def find_leaks(
    pretraining: pd.DataFrame, evaluation: pd.DataFrame, copies: Copies | None = None
) -> pd.DataFrame:
    """Return the evaluation images that pretraining gives away, each once, for the first reason.

    The reasons are, in this order: same file, same origin, exact duplicate, near duplicate, same
    patient. Copies of copies are near duplicates too, so that the distance may be larger than that
    of direct ones. The pretraining image is the closest copy, or the first one for other reasons.

    Args:
        pretraining: Rows of a checked index that are trained on.
        evaluation: Rows of a checked index.
        copies: Copies among the images of both, where they were compared.

    Returns:
        A row for each image that is exposed, columns `LEAKS`.
    """
    tables = [
        _matches(pretraining["path"], evaluation["path"], "same file"),
        _matches(_text(pretraining, "origin"), _text(evaluation, "origin"), "same origin"),
    ]
    if copies is not None:
        tables.append(copies.between(pretraining["path"], evaluation["path"]))
    tables += [
        _matches(_text(pretraining, "origin_patient"), _text(evaluation, "origin_patient"),
                 _PATIENT),
        _matches(_patients(pretraining), _patients(evaluation), _PATIENT),
    ]  # fmt: skip
    found = pd.concat([table for table in tables if len(table)] or tables[:1])
    found = found.drop_duplicates("evaluation").sort_values("evaluation")
    number, partner = (found[name].to_numpy(dtype=np.int64) for name in LEAKS[:2])
    leaks = pd.DataFrame(
        {
            "evaluation": evaluation["path"].to_numpy()[number],
            "pretraining": pretraining["path"].to_numpy()[partner],
            "split": evaluation["split"].to_numpy()[number],
            "reason": found["reason"].to_numpy(),
        }
    )
    distance = pd.array([pd.NA] * len(leaks), dtype="Int64")
    if copies is not None:
        distance = copies.distance(leaks["pretraining"], leaks["evaluation"])
    return leaks.assign(distance=distance)


def leak_level(
    pretraining: pd.DataFrame,
    evaluation: pd.DataFrame,
    leaks: pd.DataFrame,
    copies: Copies | None = None,
) -> Level:
    """Return the level that two indices obey.

    Without perceptual hashes nothing is said of images that no name links, such as those of SIIM
    and NIH, and without the names of patients no more than L1.

    Args:
        pretraining: Rows of a checked index that are trained on.
        evaluation: Rows of a checked index.
        leaks: What `find_leaks` returned for them.
        copies: What it was given.
    """
    hashed = copies is not None
    patients = int((leaks["reason"] == _PATIENT).sum())
    exposed = len(leaks) - patients
    by = "by name and perceptual hash" if hashed else "by name"
    pairs = list(product(groups(pretraining), groups(evaluation)))
    unlike = _named(pair for pair in pairs if not hashed and not _images_known(*pair))
    nameless = _named(pair for pair in pairs if not _patients_known(*pair))
    name: Literal["L0", "L1", "L2", "unknown"] = "L2"
    why = by
    if exposed:
        name = "L0"
    elif unlike:
        name, why = "unknown", f"{unlike} may share images that only perceptual hashes tell"
    elif patients:
        name = "L1"
    elif nameless:
        name, why = "L1", f"{by}; patients of {nameless} cannot be compared"
    return Level(name, len(evaluation), exposed, patients, why)


def _images_known(first: Group, second: Group) -> bool:
    """Return whether names tell the images that two groups share."""
    kind = relation(first, second)
    linked = kind == "same" and first.origin and second.origin
    return kind == "unrelated" or linked or _patients_known(first, second)


def _patients_known(first: Group, second: Group) -> bool:
    """Return whether names tell the patients that two groups share."""
    kind = relation(first, second)
    if kind != "same":
        return kind == "unrelated"
    numbered = first.patient and second.patient and first.dataset == second.dataset
    return numbered or (first.owner and second.owner)


def _named(pairs: Iterable[tuple[Group, Group]]) -> str:
    """Return the datasets of some pairs in words; empty for none."""
    names = {tuple(sorted({group.dataset or "no name" for group in pair})) for pair in pairs}
    return ", ".join(" and ".join(pair) for pair in sorted(names)[:3])


def _text(index: pd.DataFrame, name: str) -> "pd.Series[str]":
    if name in index:
        return index[name].astype("string")
    return pd.Series(pd.array([pd.NA] * len(index), dtype="string"), index=index.index)


def _patients(index: pd.DataFrame) -> "pd.Series[str]":
    """Return patients that no other dataset has; the same number there is another person."""
    return index["dataset"].fillna("").astype("string") + "\0" + index["patient_id"]


def _matches(
    pretraining: "pd.Series[str]", evaluation: "pd.Series[str]", reason: str
) -> pd.DataFrame:
    """Return the numbers of evaluation images and of the first pretraining image of equal key."""
    keys = pretraining.reset_index(drop=True).dropna().drop_duplicates()
    first = pd.Series(keys.index, index=keys.to_numpy())
    found = evaluation.reset_index(drop=True).map(first).dropna()
    columns = {"evaluation": found.index, "pretraining": found.to_numpy(dtype=np.int64)}
    return pd.DataFrame(columns | {"reason": reason})

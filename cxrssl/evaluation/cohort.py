"""The images of an evaluation: their splits, labels and patients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.few_label import LabelledFeatures, Subsets
from cxrssl.analysis.metrics import known_labels
from cxrssl.analysis.resampling import patients_of
from cxrssl.analysis.subgroups import age_bands
from cxrssl.data import SPLITS, CXRDataModule
from cxrssl.data.splits import stable_fractions
from cxrssl.data.subsets import few_shot, image_names, nested_subset
from cxrssl.errors import InputError
from cxrssl.evaluation.options import EvaluationOptions, Group

__all__ = ["Cohort", "choose_images"]

_LATERAL = ("L", "LL", "RL", "LAT")
_FRONTAL = ("PA", "AP", "FRONTAL", "POSTEROANTERIOR", "ANTEROPOSTERIOR")
_KINDS = (("positive", 1), ("negative", 0))
_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Cohort:
    """Images with known splits and labels.

    Attributes:
        rows: Their n rows of the index, in its order, with the splits that are used.
        findings: The F findings of which every split shows both classes.
        labels: (n, F), 1, 0, -1 (uncertain) or NaN (missing, or left out to balance classes).
        not_scored: Other findings, and what they lack.
        folder: Folder of the images, on which no choice depends.
    """

    rows: pd.DataFrame
    findings: list[str]
    labels: NDArray[np.float32]
    not_scored: dict[str, str]
    folder: str = ""

    def places(self, split: str) -> NDArray[np.intp]:
        """Return which of the n images belong to a split."""
        return np.flatnonzero(self.rows["split"] == split)

    def labelled(self, features: NDArray[np.floating], split: str) -> LabelledFeatures:
        """Return the features, of all n images, and the labels of a split's."""
        places = self.places(split)
        return LabelledFeatures(features[places], self.labels[places])

    def patients(self, split: str) -> "pd.Series[str]":
        """Return whose the images of a split are."""
        return patients_of(self.rows.iloc[self.places(split)])

    def groups(self, names: Sequence[Group]) -> dict[str, list[object]]:
        """Return the group of each test image, by what they are grouped by; with two at least."""
        rows = self.rows.iloc[self.places("test")]
        columns: dict[Group, list[object]] = {
            "sex": rows["sex"].tolist(),
            "age": list(age_bands(rows["age"].to_numpy(dtype=np.float64))),
            "view": rows["view_position"].tolist(),
            "dataset": rows["dataset"].tolist(),
        }
        return {name: columns[name] for name in names if pd.Series(columns[name]).nunique() > 1}

    def subsets(self, options: EvaluationOptions) -> Subsets:
        """Return the few-label subsets of the training images."""
        places = self.places("train")
        rows, labels = self.rows.iloc[places], self.labels[places]
        found: dict[tuple[str, float, int], NDArray[np.integer]] = {}
        for seed in options.seeds:
            for share in options.shares:
                # All images are the same ones for every seed.
                if share < 1 or seed == options.seeds[0]:
                    found["share", share, seed] = nested_subset(
                        rows, float(share), seed, folder=self.folder
                    )
            for shots in options.shots:
                found["shots", shots, seed] = few_shot(
                    labels, rows, shots, seed, folder=self.folder
                )
        return found

    def keep(self, kept: NDArray[np.bool_]) -> "Cohort":
        """Return the cohort without some of its images."""
        return (
            self
            if kept.all()
            else _cohort(self.rows[kept], self.findings, self.labels[kept], self.folder)
        )


def choose_images(data: CXRDataModule, options: EvaluationOptions) -> Cohort:
    """Return the labelled images of an index that are evaluated.

    Where the index has no validation images, some training patients become their own split.

    Args:
        data: The images; its views say which findings are wanted.
        options: Which of them.

    Raises:
        InputError: If a split is empty, or no finding shows both classes in every split.
    """
    parts = {split: _shown(data, split, options) for split in SPLITS}
    for split in ("train", "test"):
        if parts[split].empty:
            raise InputError(
                f"the index has no {_NAMES[split]} images: give it a column 'split', or set "
                "data.split"
            )
    rows = pd.concat(list(parts.values())).sort_index()
    if parts["val"].empty:
        train = parts["train"]
        held_out = nested_subset(train, options.validation, options.seed, folder=data.image_folder)
        rows.loc[train.index[held_out], "split"] = "val"
    findings = list(data.views.targets.findings) if data.views is not None else []
    labels = rows[findings].to_numpy(dtype=np.float32, copy=True)
    if options.balance:
        _balance(labels, rows.assign(name=image_names(rows, data.image_folder)), findings, options)
        used = np.flatnonzero(known_labels(labels).any(1))
        rows, labels = rows.iloc[used], labels[used]
    return _cohort(rows, findings, labels, data.image_folder)


def _cohort(
    rows: pd.DataFrame, findings: Sequence[str], labels: NDArray[np.float32], folder: str
) -> Cohort:
    not_scored = {}
    for column, finding in enumerate(findings):
        for split in SPLITS:
            values = labels[(rows["split"] == split).to_numpy(), column]
            lacking = [kind for kind, value in _KINDS if not (values == value).any()]
            if lacking:
                not_scored[finding] = f"no {' and no '.join(lacking)} {_NAMES[split]} image"
                break
    scored = [finding for finding in findings if finding not in not_scored]
    if not scored:
        reasons = "; ".join(f"{finding}: {reason}" for finding, reason in not_scored.items())
        raise InputError(f"no finding can be scored ({reasons}): choose other findings or splits")
    return Cohort(rows, scored, labels[:, [f in scored for f in findings]], not_scored, folder)


def _shown(data: CXRDataModule, split: str, options: EvaluationOptions) -> pd.DataFrame:
    """Return the labelled rows of a split, of the wanted view."""
    if data.rows(split).empty:
        return data.rows(split)
    rows = data.shown_rows(split)
    if options.views is None:
        return rows
    chosen = rows[[_view(name) == options.views for name in rows["view_position"]]]
    if chosen.empty:
        there = ", ".join(sorted(set(rows["view_position"].dropna()))) or "nothing"
        raise InputError(
            f"no {_NAMES[split]} image is {options.views}: the column view_position holds {there}"
        )
    return chosen


def _view(name: Any) -> Literal["frontal", "lateral"] | None:
    """Return what an entry of the column view_position means, None for anything else."""
    text = name.upper().replace("_", " ") if isinstance(name, str) else ""
    if text in _LATERAL or "LATERAL" in text:
        return "lateral"
    return "frontal" if text.startswith(_FRONTAL) else None


def _balance(
    labels: NDArray[np.float32],
    rows: pd.DataFrame,
    findings: Sequence[str],
    options: EvaluationOptions,
) -> None:
    """Forget negatives until each finding has at most as many as positives in each split.

    The order is one of a hash of seed, finding and ``name``.
    """
    for column, finding in enumerate(findings):
        order = np.argsort(stable_fractions(options.seed, f"negative {finding} " + rows["name"]))
        for split in SPLITS:
            of_split = order[(rows["split"] == split).to_numpy()[order]]
            values = labels[of_split, column]
            negatives = of_split[values == 0]
            labels[negatives[np.sum(values == 1) :], column] = np.nan

"""Opening every image of some indices, and comparing all with all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cxrssl.data import CXRDataModule
from cxrssl.data.duplicates import (
    LEAKS,
    Copies,
    Level,
    find_leaks,
    fingerprint_images,
    keep_one,
    leak_level,
    trained_on,
)
from cxrssl.data.validate import shared_patients
from cxrssl.errors import InputError

__all__ = ["FINGERPRINTS", "TABLES", "Checked", "Judged", "check"]

TABLES = ("corrupt", "patients", "duplicates", "leaks")
"""Tables that are written, each to a CSV file of its name."""

FINGERPRINTS = "fingerprints.parquet"

_HELD_OUT = ("val", "test")
_CORRUPT = ("index", "path", "state", "cause")
_PATIENTS = ("index", "dataset", "patient_id", "split")
_DUPLICATES = ("cluster", "index", "path", "split", "kept", "reason", "distance")


class Judged(NamedTuple):
    """The level of a split of an index against the images that are trained on."""

    name: str
    split: str | None
    level: Level


@dataclass(frozen=True)
class Checked:
    """What was found.

    Attributes:
        images: Number of images of each index and split; an index without splits has one, None.
        corrupt: A row for each image that is missing, unreadable or blank.
        patients: A row for each split of each patient who stands in several of one index.
        duplicates: A row for each image that has copies: its ``cluster``, the copy that is best
            ``kept``, and as what and in how many bits it differs from that one.
        leaks: A row for each image that the first index's training images expose, see
            :func:`~cxrssl.data.duplicates.find_leaks`, with the ``index`` that it is of.
        levels: The level of each split.
        opened: Whether images were opened and compared, or names alone.
    """

    images: dict[str, dict[str | None, int]]
    corrupt: pd.DataFrame
    patients: pd.DataFrame
    duplicates: pd.DataFrame
    leaks: pd.DataFrame
    levels: list[Judged]
    opened: bool

    @property
    def clean(self) -> bool:
        """Whether nothing was found; images that are trained on in both indices are no leak."""
        leaking = self.leaks["split"] != "train"
        found = (self.corrupt, self.patients, self.duplicates, self.leaks[leaking])
        return all(table.empty for table in found)

    def write(self, folder: Path) -> None:
        """Write each table as a CSV file, also those without rows."""
        for name in TABLES:
            table: pd.DataFrame = getattr(self, name)
            table.to_csv(folder / f"{name}.csv", index=False)


def check(
    data: Mapping[str, CXRDataModule],
    folder: str | os.PathLike[str],
    *,
    workers: int = 0,
    hashes: bool = True,
    progress: bool = False,
) -> Checked:
    """Look through the images of some indices.

    The first index is pretrained on: its training split, or all of it if it has no splits. What
    it exposes is looked for in its other splits and in all splits of the other indices.

    Args:
        data: The images by the name of their index.
        folder: Where fingerprints are kept, so that the next time only new files are opened.
        workers: Processes that open images; 0 opens them in this one.
        hashes: Whether images are opened and compared, or names alone.
        progress: Whether a bar shows how far it is.

    Raises:
        InputError: If an index is not valid; patients in several splits do not make it so.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frames = {name: _read(module) for name, module in data.items()}
    images = _images(frames)
    copies = None
    if hashes:
        parts = [
            fingerprint_images(
                data[str(name)].make_source(rows),
                data[str(name)].image_keys(rows),
                folder / FINGERPRINTS,
                workers=workers,
                progress=progress,
            )
            for name, rows in images.groupby("index", sort=False)
        ]
        fingerprints = pd.concat(parts, ignore_index=True)
        copies = Copies(images["path"], fingerprints, images.get("origin"))
    leaks, levels = _leaks(frames, copies)
    return Checked(
        images={name: _counts(frame) for name, frame in frames.items()},
        corrupt=_corrupt(images, copies),
        patients=_patients(frames),
        duplicates=_duplicates(images, copies),
        leaks=leaks,
        levels=levels,
        opened=hashes,
    )


def _read(module: CXRDataModule) -> pd.DataFrame:
    module.whole_patients = False
    return module.unsplit_index


def _images(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all indices, each path once, with the ``index`` it is of."""
    if any("index" in frame for frame in frames.values()):
        raise InputError("an index has a label called 'index': give it another name")
    tables = [frame.assign(index=name) for name, frame in frames.items()]
    return pd.concat(tables).drop_duplicates("path", ignore_index=True)


def _counts(frame: pd.DataFrame) -> dict[str | None, int]:
    if frame["split"].isna().all():
        return {None: len(frame)}
    return {str(split): int(n) for split, n in frame["split"].value_counts(sort=False).items()}


def _corrupt(images: pd.DataFrame, copies: Copies | None) -> pd.DataFrame:
    if copies is None:
        return pd.DataFrame(columns=list(_CORRUPT))
    table = images.assign(**{name: copies.fingerprints[name] for name in ("state", "cause")})
    return table.loc[table["state"] != "ok", list(_CORRUPT)].reset_index(drop=True)


def _patients(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    tables = [shared_patients(frame).assign(index=name) for name, frame in frames.items()]
    table = pd.concat(tables, ignore_index=True)[list(_PATIENTS)]
    return table.sort_values(list(_PATIENTS), ignore_index=True)


def _duplicates(images: pd.DataFrame, copies: Copies | None) -> pd.DataFrame:
    """Return the images with copies; of each cluster the best one comes first."""
    if copies is None:
        return pd.DataFrame(columns=list(_DUPLICATES))
    dropped = keep_one(images, copies.fingerprints, copies.clusters).dropped
    table = images[["index", "path", "split"]].assign(cluster=copies.clusters)
    table = table[table["cluster"] >= 0].merge(
        dropped, how="left", left_on="path", right_on="dropped"
    )
    table["kept"] = table["kept"].fillna(table["path"])
    table["distance"] = table["distance"].astype("Int64")
    worse = table["reason"].notna()
    order = table.assign(worse=worse).sort_values(["cluster", "worse"], kind="stable")
    return order[list(_DUPLICATES)].reset_index(drop=True)


def _leaks(
    frames: Mapping[str, pd.DataFrame], copies: Copies | None
) -> tuple[pd.DataFrame, list[Judged]]:
    """Return what the first index exposes of each split, and the levels."""
    own = next(iter(frames))
    pretraining = trained_on(frames[own])
    tables = [pd.DataFrame(columns=["index", *LEAKS])]
    levels = []
    for name, frame in frames.items():
        for split in _counts(frame):
            if name == own and split not in _HELD_OUT:
                continue
            rows = frame if split is None else frame[frame["split"] == split]
            leaks = find_leaks(pretraining, rows, copies)
            level = leak_level(pretraining, rows, leaks, copies)
            levels.append(Judged(name, split, level))
            tables.append(leaks.assign(index=name)[["index", *LEAKS]])
    filled = [table for table in tables if len(table)]
    return pd.concat(filled or tables[:1], ignore_index=True), levels

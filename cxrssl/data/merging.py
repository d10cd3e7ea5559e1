"""One index out of several: sources kept apart, copies and what is to be held out left out."""

import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.duplicates import cluster, find_duplicates, keep_one, known_fingerprints
from cxrssl.data.subsets import nested_subset
from cxrssl.data.validate import MASK, SPLITS

__all__ = ["SOURCE", "cap_sources", "drop_copies", "drop_held_out", "drop_near", "join", "weigh"]

SOURCE = "source"
"""Column that names the source of a row while indices are being merged."""


def join(indices: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all indices with a column `source`; a row without a dataset gets it.

    A label that a source does not have is missing there.

    Args:
        indices: Checked indices by the name of their source.
    """
    frames = []
    for name, index in indices.items():
        frame = index.assign(dataset=index["dataset"].fillna(name))
        frame[SOURCE] = name
        frames.append(frame)
    joined = pd.concat(frames, ignore_index=True)
    masks = [str(name) for name in joined if str(name).startswith(MASK)]
    return joined.astype(dict.fromkeys(masks, "string"))


def drop_copies(joined: pd.DataFrame, *, origins: bool = True) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with one of each image, and the table of those that were left out.

    A copy that is tested on is kept before one that is validated on, and that before one that is
    trained on; among equals the first.

    Args:
        joined: Rows of `join`.
        origins: Whether rows of one origin are copies, or only those of one path.
    """
    joined, files = _keep_first(joined, joined["path"], "same file")
    if not origins:
        return joined, files
    joined, copies = _keep_first(joined, _column(joined, "origin"), "same origin")
    return joined, pd.concat([files, copies], ignore_index=True)


def drop_near(
    joined: pd.DataFrame, fingerprints: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with one of each image as `keep_one` takes it, and what was left out.

    Args:
        joined: Rows of `join`.
        fingerprints: What `cxrssl check` keeps of these images.
    """
    rows = joined.reset_index(drop=True)
    prints = known_fingerprints(rows["path"].tolist(), fingerprints)
    if lacking := int(prints["state"].isna().sum()):
        warnings.warn(
            f"{lacking} of {len(rows)} images have no fingerprint, so that no copies of them are "
            "found: run cxrssl check on all of them, with the same paths",
            stacklevel=2,
        )
    kept = keep_one(rows, prints, first=_rank(rows).to_numpy().astype(np.int64))
    return kept.rows, kept.dropped


def drop_held_out(
    joined: pd.DataFrame,
    held_out: Iterable[pd.DataFrame] = (),
    *,
    patients: bool = True,
    fingerprints: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows without what is evaluated, and the table of those that were left out.

    Of a patient who stands in several splits, known by the origin across sources, the images of the
    last of train, val and test stay. Then every row goes that stands in an index that is held out:
    as an image or a copy of it and, if patients are, as any image of its patients.

    Args:
        joined: Rows of `join`.
        held_out: Indices of images to evaluate on.
        patients: Whether to leave out all images of their patients too (level L2), or only the
            images themselves (L1).
        fingerprints: What `cxrssl check` keeps of all these images, to know copies by.
    """
    dropped = []
    owner = _owner(joined)
    rank = _rank(joined)
    last = rank.groupby(owner).transform("max").reindex(joined.index).fillna(rank)
    joined, lost = _without(joined, rank < last, "patient of a later split")
    dropped.append(lost)
    for index in held_out:
        same = joined["path"].isin(index["path"])
        same |= _column(joined, "origin").isin(set(_column(index, "origin").dropna()))
        if fingerprints is not None:
            same |= _is_copy(joined, index, fingerprints)
        joined, lost = _without(joined, same, "image held out")
        dropped.append(lost)
        if patients:
            owners = set(_owner(index).dropna())
            joined, lost = _without(joined, _owner(joined).isin(owners), "patient held out")
            dropped.append(lost)
    return joined, pd.concat(dropped, ignore_index=True)


def _is_copy(
    joined: pd.DataFrame, index: pd.DataFrame, fingerprints: pd.DataFrame
) -> "pd.Series[bool]":
    """Return which rows are copies of images of an index, by what they look like."""
    paths = [*joined["path"], *index["path"]]
    prints = known_fingerprints(paths, fingerprints)
    clusters = cluster(len(paths), find_duplicates(prints))
    ours, theirs = clusters[: len(joined)], clusters[len(joined) :]
    return pd.Series((ours >= 0) & np.isin(ours, theirs), index=joined.index)


def cap_sources(joined: pd.DataFrame, caps: Mapping[str, int], seed: int) -> pd.DataFrame:
    """Return the rows with at most so many training images of each named source.

    Patients are taken whole, see `nested_subset`.
    """
    keep = np.ones(len(joined), dtype=np.bool_)
    for name, most in caps.items():
        place = np.flatnonzero(((joined[SOURCE] == name) & (joined["split"] == "train")).to_numpy())
        if len(place) > most:
            keep[place] = False
            keep[place[nested_subset(joined.iloc[place], most, seed)]] = True
    return joined[keep]


def weigh(
    sources: "pd.Series[str]", weights: Mapping[str, float], balance: float
) -> NDArray[np.float64] | None:
    """Return the sampling weight (n,) of each training image; None where all are equal.

    A source of n images and weight w is drawn in proportion to w n^balance.

    Args:
        sources: Source (n,) of each image.
        weights: Weight by source, 1 where absent.
        balance: 1 draws sources as they are, 0 equally often.
    """
    sizes = sources.value_counts()
    each = {
        name: weights.get(str(name), 1.0) * float(size) ** (balance - 1)
        for name, size in sizes.items()
    }
    if len(set(each.values())) == 1:
        return None
    return np.asarray(sources.map(each).to_numpy(dtype=np.float64))


def _owner(frame: pd.DataFrame) -> "pd.Series[str]":
    """Return who each row is of, across sources where its origin says so, missing if unknown."""
    own = frame["dataset"].fillna("") + ":" + frame["patient_id"]
    return _column(frame, "origin_patient").fillna(own)


def _column(frame: pd.DataFrame, name: str) -> "pd.Series[str]":
    if name in frame:
        return frame[name].astype("string")
    return pd.Series(pd.array([pd.NA] * len(frame), dtype="string"), index=frame.index)


def _keep_first(
    joined: pd.DataFrame, key: "pd.Series[str]", reason: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows with one of each key, and the others as dropped rows."""
    order = _rank(joined).sort_values(ascending=False, kind="stable").index
    ordered = key.loc[order]
    repeated = ordered.index[ordered.duplicated() & ordered.notna()]
    first = joined["path"].loc[order].groupby(ordered).transform("first")
    lost = _table(joined["path"].loc[repeated], first.loc[repeated], reason)
    return joined.drop(index=repeated), lost


def _rank(joined: pd.DataFrame) -> "pd.Series[int]":
    """Return the place of each row's split among train, val and test."""
    return joined["split"].map({name: place for place, name in enumerate(SPLITS)}).astype(int)


def _without(
    joined: pd.DataFrame, gone: "pd.Series[bool]", reason: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    lost = joined[gone]
    nothing = pd.Series(pd.array([pd.NA] * len(lost), dtype="string"))
    return joined[~gone], _table(lost["path"], nothing, reason)


def _table(dropped: "pd.Series[str]", kept: "pd.Series[str]", reason: str) -> pd.DataFrame:
    values = (dropped.to_numpy(), kept.to_numpy(), reason)
    return pd.DataFrame(dict(zip(("dropped", "kept", "reason"), values, strict=True)))

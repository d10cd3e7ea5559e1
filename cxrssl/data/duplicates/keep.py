"""One image of each cluster of copies, the best of them."""

import os
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.duplicates.find import cluster, equal, find_duplicates, hash_distances

__all__ = ["DROPPED", "Kept", "best_copies", "keep_one"]

DROPPED = ("dropped", "kept", "reason", "distance")
"""Columns of the table of rows that were left out: two paths, why, and how many bits differ."""

_REDUCED = 0.25
"""Share of the pixels of the largest copy below which one is kept only if there is no other."""


class Kept(NamedTuple):
    """What is left of an index.

    Attributes:
        rows: Rows of the index without worse copies, in their order.
        dropped: A row for each that was left out, columns `DROPPED`.
    """

    rows: pd.DataFrame
    dropped: pd.DataFrame


def keep_one(
    index: pd.DataFrame,
    fingerprints: pd.DataFrame,
    clusters: NDArray[np.int64] | None = None,
    first: NDArray[np.int64] | None = None,
) -> Kept:
    """Return an index with one of each image, and what was left out.

    See `best_copies` for which one is kept.

    Args:
        index: A checked index (n rows).
        fingerprints: Rows (n,) of `fingerprint_images` for the same images.
        clusters: Cluster (n,) of each, -1 for none; found by origin and fingerprints if None.
        first: Rank (n,) that comes before the quality of the file, the larger the better, such as
            that of splits.
    """
    origins = index.get("origin")
    if clusters is None:
        clusters = cluster(len(index), find_duplicates(fingerprints, origins))
    best = best_copies(index, fingerprints, clusters, first)
    dropped = np.flatnonzero(best != np.arange(len(index)))
    kept = best[dropped]
    reasons = np.full(len(dropped), "near duplicate", dtype=object)
    for reason, keys in (("exact duplicate", fingerprints["exact"]), ("same origin", origins)):
        if keys is not None:
            reasons[equal(keys, dropped, kept)] = reason
    paths = index["path"].to_numpy()
    values = (
        paths[dropped],
        paths[kept],
        reasons,
        hash_distances(fingerprints, kept, dropped),
    )
    lost = pd.DataFrame(dict(zip(DROPPED, values, strict=True)))
    return Kept(index.drop(index=index.index[dropped]), lost)


def best_copies(
    index: pd.DataFrame,
    fingerprints: pd.DataFrame,
    clusters: NDArray[np.int64],
    first: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Return the number (n,) of the best copy of each image, its own where there is no other.

    An image that can be read is better than one that cannot, and one with less than a quarter of
    the pixels of the largest copy is worse than the others. Then DICOM is better than PNG or TIFF
    of sixteen bits, these better than those of eight bits, and these better than JPEG, as far as
    bits and suffix tell; then more known columns are better, more pixels, and the earlier row.

    Args:
        index: A checked index (n rows).
        fingerprints: Rows (n,) of the same images.
        clusters: Cluster (n,) of each, -1 for none.
        first: Rank (n,) that comes before all this, the larger the better.
    """
    n = len(index)
    size = fingerprints["height"].astype(float) * fingerprints["width"].astype(float)
    pixels = size.fillna(0).to_numpy()
    alone = np.where(clusters < 0, -1 - np.arange(n), clusters)
    largest = pd.Series(pixels).groupby(alone).transform("max").to_numpy()
    bits = fingerprints["bits"].astype(float).fillna(0)
    order = pd.DataFrame(
        {
            "first": np.zeros(n) if first is None else first,
            "readable": fingerprints["state"].isin(("ok", "blank")).to_numpy(),
            "large": pixels >= _REDUCED * largest,
            "format": [
                _format(path, depth) for path, depth in zip(index["path"], bits, strict=True)
            ],
            "known": index.notna().sum(axis=1).to_numpy(),
            "pixels": pixels,
        }
    )
    ranked = order.sort_values(
        order.columns.tolist(), ascending=False, kind="stable"
    ).index.to_numpy()
    groups = pd.Series(ranked).groupby(alone[ranked]).first()
    return groups.loc[alone].to_numpy(dtype=np.int64)


def _format(path: str, bits: float) -> int:
    """Return how good a file is: 3 DICOM, 2 sixteen bits, 1 eight bits, 0 JPEG."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".jpg", ".jpeg"):
        return 0
    if suffix in (".png", ".tif", ".tiff") or "#" in suffix:
        return 2 if bits > 8 else 1
    return 3  # DICOM has all kinds of suffixes, or none

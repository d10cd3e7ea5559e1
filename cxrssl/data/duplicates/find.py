"""Which images are copies of which."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cxrssl.data.duplicates.fingerprint import LOOKS, SIDE, look
from cxrssl.data.duplicates.search import close_pairs

__all__ = ["CORRELATION", "DISTANCE", "cluster", "equal", "find_duplicates", "hash_distances"]

DISTANCE = 4
"""Bits of 64 in which perceptual hashes of copies differ at most."""

CORRELATION = 0.97
"""Least correlation of the thumbnails of copies."""

_MOST_ALIKE = 32
"""Images of one hash that are compared with each other; more are compared with these alone."""

_AT_ONCE = 2**14
_COLUMNS = ("first", "second", "reason", "look", "distance", "correlation")

Numbers = NDArray[np.int64]


def find_duplicates(
    fingerprints: pd.DataFrame, names: "pd.Series[str] | None" = None
) -> pd.DataFrame:
    """Return pairs of images that are copies of each other.

    Images of one name or of equal pixels are copies of the first of them; these pairs come first.
    Images that look alike differ in at most `DISTANCE` bits of their perceptual hashes, as they are
    or mirrored, inverted or both, and their thumbnails correlate by at least `CORRELATION`. Of
    equal pixels only the first image is looked at, and of more than 32 images with one hash the
    others are compared with 32 of them: many equal test pictures cost no more than as many
    different ones. Blank images are not compared.

    Args:
        fingerprints: Rows (n,) of `fingerprint_images`.
        names: Names (n,) of the images wherever they were released, such as the column ``origin``.

    Returns:
        A row a pair: ``first`` and ``second`` number of the image, the smaller one first;
        ``reason``: same origin, exact duplicate or near duplicate; ``look``, what was done to the
        second image, of `LOOKS`; ``distance`` of the hashes in bits and ``correlation`` of the
        thumbnails, missing where names told.
    """
    usable = (fingerprints["state"] == "ok").to_numpy()
    pixels = fingerprints["exact"].where(pd.Series(usable, fingerprints.index))
    tables = []
    if names is not None:
        tables.append(_pairs_of_equals(names, "same origin"))
    exact = _pairs_of_equals(pixels, "exact duplicate")
    tables.append(exact.assign(distance=0, correlation=1.0))
    first = usable & ~pixels.duplicated().to_numpy()
    tables.append(_near(fingerprints, np.flatnonzero(first)))
    pairs = pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)
    return pairs.drop_duplicates(["first", "second"], ignore_index=True)


def cluster(n: int, pairs: pd.DataFrame) -> Numbers:
    """Return the cluster of each image (n,), counted from 0; -1 for an image without a copy."""
    edges = pairs["first"].to_numpy(dtype=np.int64), pairs["second"].to_numpy(dtype=np.int64)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), edges), shape=(n, n))
    groups = connected_components(graph, directed=False)[1]
    repeated = np.bincount(groups, minlength=1)[groups] > 1
    clusters = np.full(n, -1, dtype=np.int64)
    clusters[repeated] = pd.factorize(groups[repeated])[0]
    return clusters


def equal(keys: "pd.Series[str]", first: Numbers, second: Numbers) -> NDArray[np.bool_]:
    """Return which pairs (m,) of images have a key, and the same one."""
    values = keys.astype(object).where(keys.notna(), None).to_numpy()
    pairs = zip(values[first], values[second], strict=True)
    return np.array([one is not None and one == other for one, other in pairs], dtype=np.bool_)


def hash_distances(fingerprints: pd.DataFrame, first: Numbers, second: Numbers) -> Numbers:
    """Return the least distance (m,) of hashes of pairs of images, -1 where one has none."""
    used = np.unique(np.concatenate([first, second]))
    texts = fingerprints["hashes"].iloc[used]
    hashes = {
        number: np.frombuffer(text if isinstance(text, bytes) else b"", dtype=">u8")
        for number, text in zip(used.tolist(), texts, strict=True)
    }
    distances = []
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        faces = hashes[i][:: len(LOOKS), None]
        each = np.bitwise_count(faces ^ hashes[j])
        distances.append(int(each.min()) if each.size else -1)
    return np.array(distances, dtype=np.int64)


def _pairs_of_equals(keys: "pd.Series[str]", reason: str) -> pd.DataFrame:
    """Return the pairs of the first image of each key and its others."""
    present = np.flatnonzero(keys.notna())
    codes = pd.factorize(keys.iloc[present])[0]
    start = np.full(int(codes.max(initial=-1)) + 1, len(keys), dtype=np.int64)
    np.minimum.at(start, codes, present)
    others = present[present != start[codes]]
    pairs = start[codes][present != start[codes]], others
    values = (*pairs, reason, LOOKS[0], np.nan, np.nan)
    return pd.DataFrame(dict(zip(_COLUMNS, values, strict=True)))


@dataclass(frozen=True)
class _Faces:
    """Faces of images: thumbnails (m, 32, 32), hashes (m, 4), and whose they are (m,)."""

    thumbnails: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    owner: Numbers

    def take(self, numbers: Numbers) -> "_Faces":
        return _Faces(self.thumbnails[numbers], self.hashes[numbers], self.owner[numbers])


def _near(fingerprints: pd.DataFrame, numbers: Numbers) -> pd.DataFrame:
    """Return the pairs of images that look alike, of those with some numbers."""
    rows = fingerprints.iloc[numbers]
    thumbnails = np.frombuffer(b"".join(rows["thumbnails"]), dtype=np.uint8)
    hashes = np.frombuffer(b"".join(rows["hashes"]), dtype=">u8").astype(np.uint64)
    each = np.array([len(value) // SIDE**2 for value in rows["thumbnails"]], dtype=np.int64)
    faces = _Faces(
        thumbnails.reshape(-1, SIDE, SIDE),
        hashes.reshape(-1, len(LOOKS)),
        np.repeat(numbers, each),
    )
    place = _place_among_equals(faces.hashes[:, 0])
    few = np.flatnonzero(place < _MOST_ALIKE)
    leaders = faces.take(few)
    tables = []
    for number in range(len(LOOKS)):
        i, j = close_pairs(leaders.hashes[:, 0], leaders.hashes[:, number], DISTANCE)
        tables.append(_confirm(faces, few[i], few[j], number))
    tables.append(_confirm(faces, *_with_leaders(faces.hashes[:, 0], place), 0))
    pairs = pd.concat(tables, ignore_index=True)
    best = pairs.sort_values(["first", "second", "correlation"], ascending=[True, True, False])
    return best.drop_duplicates(["first", "second"], ignore_index=True)


def _place_among_equals(values: NDArray[np.uint64]) -> Numbers:
    """Return how many earlier values (n,) are equal to each."""
    counted = pd.Series(values).groupby(values).cumcount()
    return np.asarray(counted.to_numpy(), dtype=np.int64)


def _with_leaders(hashes: NDArray[np.uint64], place: Numbers) -> tuple[Numbers, Numbers]:
    """Return the pairs of the first images of a hash with those that are too many."""
    late = np.flatnonzero(place >= _MOST_ALIKE)
    early = np.flatnonzero((place < _MOST_ALIKE) & np.isin(hashes, hashes[late]))
    left = pd.DataFrame({"hash": hashes[early], "first": early})
    pairs = left.merge(pd.DataFrame({"hash": hashes[late], "second": late}), on="hash")
    return pairs["first"].to_numpy(dtype=np.int64), pairs["second"].to_numpy(dtype=np.int64)


def _confirm(faces: _Faces, i: Numbers, j: Numbers, number: int) -> pd.DataFrame:
    """Return the pairs of faces (m,) of different images whose thumbnails correlate enough."""
    other = faces.owner[i] != faces.owner[j]
    i, j = i[other], j[other]
    chunks = [slice(start, start + _AT_ONCE) for start in range(0, len(i), _AT_ONCE)]
    values = [
        _correlations(faces.thumbnails[i[chunk]], look(faces.thumbnails[j[chunk]], number))
        for chunk in chunks
    ]
    correlations = np.concatenate([np.zeros(0, np.float32), *values])
    good = correlations >= CORRELATION
    i, j = i[good], j[good]
    owners = np.sort(np.stack([faces.owner[i], faces.owner[j]]), axis=0)
    distances = np.bitwise_count(faces.hashes[i, 0] ^ faces.hashes[j, number])
    columns = (*owners, "near duplicate", LOOKS[number], distances, correlations[good])
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))


def _correlations(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the correlation (m,) of thumbnails (m, 32, 32) with others."""
    a, b = (_standardised(thumbnails) for thumbnails in (left, right))
    return np.asarray(np.einsum("np,np->n", a, b))


def _standardised(thumbnails: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm: NDArray[np.float32] = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(norm, 1e-6), dtype=np.float32)

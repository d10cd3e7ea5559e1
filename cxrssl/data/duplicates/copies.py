"""Copies among the images of several indices."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.duplicates.find import cluster, equal, find_duplicates, hash_distances

__all__ = ["Copies"]

_MOST = 2**20
"""Pairs between two indices for which the closest copy is looked for; else it is the first."""


class Copies:
    """Images with their fingerprints, and which of them are copies of each other.

    Args:
        paths: Paths (n,) of the images, each once.
        fingerprints: Rows (n,) of `fingerprint_images`.
        names: Origins (n,), where known.

    Attributes:
        paths: Number of each path.
        pairs: What `find_duplicates` returns.
        clusters: Cluster (n,) of each image, -1 for one without a copy.
    """

    def __init__(
        self,
        paths: Iterable[str],
        fingerprints: pd.DataFrame,
        names: "pd.Series[str] | None" = None,
    ) -> None:
        self.paths = pd.Index(list(paths))
        self.fingerprints = fingerprints
        self.pairs = find_duplicates(fingerprints, names)
        self.clusters = cluster(len(fingerprints), self.pairs)

    def between(self, pretraining: "pd.Series[str]", evaluation: "pd.Series[str]") -> pd.DataFrame:
        """Return the evaluation images with a copy in pretraining: numbers of both, and reason."""
        left, right = (self._members(paths) for paths in (pretraining, evaluation))
        if _pairs_of(left, right) > _MOST:
            left = left.drop_duplicates("cluster")
        pairs = right.merge(left, on="cluster", suffixes=("_evaluation", "_pretraining"))
        pairs = pairs[pairs["number_evaluation"] != pairs["number_pretraining"]]
        numbers = [pairs[f"number_{side}"].to_numpy() for side in ("pretraining", "evaluation")]
        exact = equal(self.fingerprints["exact"], *numbers)
        table = pd.DataFrame(
            {
                "evaluation": pairs["place_evaluation"],
                "pretraining": pairs["place_pretraining"],
                "reason": np.where(exact, "exact duplicate", "near duplicate"),
                "distance": hash_distances(self.fingerprints, *numbers),
            }
        )
        # "exact" comes before "near" in the alphabet too.
        closest = table.sort_values(["evaluation", "reason", "distance", "pretraining"])
        return closest.drop_duplicates("evaluation").drop(columns="distance")

    def distance(self, first: Iterable[str], second: Iterable[str]) -> Any:
        """Return in how many bits the hashes of images (m,) differ; missing if one has none."""
        numbers = (self._numbers(paths) for paths in (first, second))
        values = hash_distances(self.fingerprints, *numbers)
        return pd.Series(values, dtype="Int64").mask(values < 0).array

    def _numbers(self, paths: Iterable[str]) -> NDArray[np.int64]:
        """Return the number of each path, -1 for one that is not among them."""
        return np.asarray(self.paths.get_indexer(pd.Index(list(paths))), dtype=np.int64)

    def _members(self, paths: "pd.Series[str]") -> pd.DataFrame:
        """Return number, place among the paths and cluster of those with copies."""
        numbers = self._numbers(paths)
        frame = pd.DataFrame({"number": numbers, "place": np.arange(len(numbers))})
        frame["cluster"] = np.where(numbers < 0, -1, self.clusters[numbers])
        return frame[frame["cluster"] >= 0]


def _pairs_of(left: pd.DataFrame, right: pd.DataFrame) -> int:
    sizes = [frame["cluster"].value_counts() for frame in (left, right)]
    return int((sizes[0] * sizes[1]).sum())

"""Copies of images: fingerprints, pairs and clusters, which to keep, and what they give away."""

from cxrssl.data.duplicates.copies import Copies
from cxrssl.data.duplicates.find import cluster, find_duplicates
from cxrssl.data.duplicates.fingerprint import LOOKS, Fingerprint, fingerprint
from cxrssl.data.duplicates.indices import index_and_root, read_index
from cxrssl.data.duplicates.keep import DROPPED, Kept, best_copies, keep_one
from cxrssl.data.duplicates.leaks import LEAKS, Level, find_leaks, leak_level, trained_on
from cxrssl.data.duplicates.relations import PARENTS
from cxrssl.data.duplicates.store import (
    fingerprint_images,
    known_fingerprints,
    read_fingerprints,
    write_fingerprints,
)

__all__ = [
    "DROPPED",
    "LEAKS",
    "LOOKS",
    "PARENTS",
    "Copies",
    "Fingerprint",
    "Kept",
    "Level",
    "best_copies",
    "cluster",
    "find_duplicates",
    "find_leaks",
    "fingerprint",
    "fingerprint_images",
    "index_and_root",
    "keep_one",
    "known_fingerprints",
    "leak_level",
    "read_fingerprints",
    "read_index",
    "trained_on",
    "write_fingerprints",
]

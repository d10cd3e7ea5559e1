"""Indices as the command line names them."""

import os

import pandas as pd

from cxrssl.data.index import load_index

__all__ = ["index_and_root", "read_index"]


def index_and_root(text: str) -> tuple[str, str | None]:
    """Return index and root of ``INDEX[=ROOT]``; a file that is there may have the sign itself."""
    index, equals, root = text.rpartition("=")
    return (index, root) if equals and not os.path.exists(text) else (text, None)


def read_index(text: str) -> pd.DataFrame:
    """Return the index of ``INDEX[=ROOT]``, also one with patients in more than one split.

    Raises:
        InputError: If it cannot be read or is not valid otherwise.
    """
    index, root = index_and_root(text)
    return load_index(index, root=root, whole_patients=False)

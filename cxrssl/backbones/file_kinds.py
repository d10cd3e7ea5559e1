"""What a file is that was taken for another one, by its first bytes."""

import zipfile
from pathlib import Path

__all__ = ["PICKLED", "kind_of_file"]

_SAVED, _PICKLED = "a file of torch.save", "a pickle"
PICKLED = (_SAVED, _PICKLED)
"""Kinds of which a part is a pickle, that may be anything."""

_ZIP = b"PK\x03\x04"
# A safetensors file begins with the length of its header, in eight bytes.
_MARKS = (("a safetensors file", b"{", 8), ("an HDF5 file", b"\x89HDF", 0), (_PICKLED, b"\x80", 0))


def kind_of_file(path: Path) -> str:
    """Return in a few words what a file seems to be, for messages.

    Args:
        path: A file, a folder, or nothing.
    """
    if not path.exists():
        return "a path without a file"
    if path.is_dir():
        return "a folder"
    start = _start(path)
    if not start:
        return "an empty file"
    if start.startswith(_ZIP):
        return _SAVED if zipfile.is_zipfile(path) else "a file that was cut off"
    for kind, mark, place in _MARKS:
        if start[place:].startswith(mark):
            return kind
    return "a text file" if _is_text(start) else "a file of a kind that is not known here"


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)


def _is_text(start: bytes) -> bool:
    return all(byte >= 32 or byte in b"\t\n\r\f" for byte in start)

"""The checkpoint that a run goes on from."""

import warnings
import zipfile
from pathlib import Path

__all__ = ["last_checkpoint"]

_PATTERNS = ("version_*/checkpoints/*.ckpt", "hpc_ckpt_*.ckpt")
"""Those of runs, and those that Lightning's own SLURM support writes beside the runs."""


def last_checkpoint(root: Path) -> str | None:
    """Return the newest whole checkpoint of the runs below a folder, None where there is none.

    Files that were cut off, such as copies made on a full disk, are passed over with a warning.
    """
    found = [path for pattern in _PATTERNS for path in root.glob(pattern) if path.is_file()]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        if zipfile.is_zipfile(path):
            return str(path)
        warnings.warn(f"{path} is no whole checkpoint and is passed over", stacklevel=2)
    return None

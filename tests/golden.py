"""Access to the reference numbers that accompany the development tree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[2] / "shared"


def load_golden(name: str) -> dict[str, Tensor]:
    """Return the numbers of a golden file; skip the test where the file is not at hand."""
    path = SHARED / "golden" / name
    if not path.is_file():
        pytest.skip(f"golden file {name} is not beside this checkout")
    with np.load(path, allow_pickle=False) as arrays:
        numbers = {key: np.array(arrays[key]) for key in arrays.files}
    return {
        key: torch.from_numpy(value) for key, value in numbers.items() if value.dtype.kind != "U"
    }


def subset(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the arrays whose name starts with ``prefix``, without it."""
    return {key[len(prefix) :]: value for key, value in arrays.items() if key.startswith(prefix)}

"""Rows that several processes have made, put together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import distributed as dist

__all__ = ["gather_images"]


def gather_images(rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the rows of all processes by ascending ``image_number``, each image once."""
    parts: list[dict[str, NDArray[Any]]] = [rows]
    if dist.is_available() and dist.is_initialized():
        parts = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, rows)
    parts = [part for part in parts if part]
    if not parts:
        return {}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    _, first = np.unique(joined["image_number"], return_index=True)
    return {name: values[first] for name, values in joined.items()}

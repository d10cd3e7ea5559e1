"""What a task predicts over an epoch, from all processes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.gathering import gather_images

__all__ = ["Outputs", "metric_key"]


class Outputs:
    """Rows of predictions of an epoch, by the numbers of their images."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Tensor]] = {}

    def add(self, batch: dict[str, Any], **values: Tensor) -> None:
        """Take the predictions (B, ...) of a batch; images that could not be read are left out."""
        readable = batch["readable"].cpu()
        for name, value in {"image_number": batch["image_number"], **values}.items():
            kept = value.detach().cpu()
            kept = kept.float() if kept.is_floating_point() else kept
            self._columns.setdefault(name, []).append(kept[readable])

    def take(self) -> dict[str, NDArray[Any]]:
        """Return and forget the rows of all processes, each once, by ascending image number."""
        rows = {name: np.asarray(torch.cat(parts)) for name, parts in self._columns.items()}
        self._columns = {}
        return gather_images(rows)


def metric_key(name: str) -> str:
    """Return the name of a finding or structure as a part of the name of a metric."""
    return name.replace(" ", "_")

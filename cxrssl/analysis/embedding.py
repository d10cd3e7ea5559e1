"""Features of all images of a loader."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["embed_loader"]


def embed_loader(
    model_fn: Callable[[Tensor], Tensor],
    loader: Iterable[Mapping[str, Any]],
    device: torch.device | str,
) -> dict[str, NDArray[Any]]:
    """Return the features of all images, and every other tensor of the batches beside them.

    Args:
        model_fn: Images (B, C, H, W) on the device to features (B, D); run without gradient.
        loader: Batches with ``image`` and any tensors of B rows, such as ``labels`` (B, F) and
            ``image_number`` (B,); entries that are no tensors are left out.
        device: Where ``model_fn`` wants the images.

    Returns:
        ``features`` (n, D) float32 and the other entries (n, ...), rows in the loader's order;
        empty where the loader is.
    """
    columns: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for batch in loader:
            images = batch["image"].to(device, non_blocking=True)
            columns.setdefault("features", []).append(model_fn(images).float().cpu())
            for name, value in batch.items():
                if name != "image" and isinstance(value, Tensor):
                    columns.setdefault(name, []).append(value.cpu())
    return {name: np.asarray(torch.cat(parts)) for name, parts in columns.items()}

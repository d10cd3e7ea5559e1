"""The Kozachenko-Leonenko regulariser: features of a batch repel their nearest neighbour."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.losses.distributed import gather_rows

__all__ = ["koleo_loss"]

_EPS = 1e-8


def koleo_loss(features: Tensor, scope: str = "rank") -> Tensor:
    """Return -mean_i log ||x_i - x_nn(i)|| of L2-normalised features (Sablayrolles et al., 2019).

    Computed in float32 whatever the precision of the run: duplicate radiographs would turn it into
    infinity in half precision. A row that is alone is its own neighbour and gets no gradient.

    Args:
        features: (B, D), one crop of each image; two crops of one image must not meet here.
        scope: ``rank`` looks for neighbours on this process, as DINOv2 does; ``global`` looks among
            the rows of all processes, so that several processes equal one with the joined batch.

    Raises:
        ValueError: If the scope is neither ``rank`` nor ``global``.
    """
    if scope not in ("rank", "global"):
        raise ValueError(f"scope must be 'rank' or 'global', got {scope!r}")
    with torch.autocast(features.device.type, enabled=False):
        own = F.normalize(features.float(), eps=_EPS, dim=-1)  # (B, D)
        pool = gather_rows(own) if scope == "global" else own  # (P, D)
        first = torch.distributed.get_rank() * len(own) if len(pool) > len(own) else 0
        rows = torch.arange(len(own), device=own.device)
        with torch.no_grad():
            similarity = own @ pool.T
            similarity[rows, rows + first] = -1
            nearest = similarity.argmax(-1)
        distance = F.pairwise_distance(own, pool[nearest], p=2, eps=_EPS)
        return -torch.log(distance + _EPS).mean()

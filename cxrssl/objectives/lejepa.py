"""LeJEPA: views that predict each other, kept apart by an isotropic Gaussian."""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from cxrssl.backbones import Backbone, Pooling, pooled_dim
from cxrssl.errors import InputError
from cxrssl.heads import Projector
from cxrssl.losses import embedding_statistics
from cxrssl.objectives.base import Objective
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import MultiCrop, Views

__all__ = ["LeJEPA"]


def published_projector(dim: int) -> Projector:
    """Return a projector of two hidden layers of 2048 and 16 outputs."""
    return Projector(dim, (2048, 2048, 16))


class LeJEPA(Objective):
    """LeJEPA (Balestriero, LeCun, 2025, arXiv 2511.08544): no teacher, no schedule, one trade-off.

    Each crop's embedding is to equal the mean embedding of the image's global crops, and the
    embeddings of each crop over the batch are to be an isotropic Gaussian. Terms, which
    ``trade_off`` (lambda) weighs as (1 - lambda) and lambda, and ``weights`` on top of it:

    - ``invariance``: the squared distance to the mean embedding of the global crops, averaged over
      crops, images and dimensions;
    - ``sigreg``: SIGReg, averaged over the crops; of the batch over all processes.

    With several processes, set ``trainer.sync_batchnorm``.

    Args:
        backbone: Any backbone.
        views: :class:`MultiCrop` by default, with two global and six local crops.
        weights: See :class:`Objective`.
        recipe: See :class:`Objective`; AdamW with a rate of 5e-4 by default.
        init_from: See :class:`Objective`.
        max_nonfinite: See :class:`Objective`.
        projector: Makes the projector for an embedding's width.
        trade_off: Lambda, in [0, 1].
        directions: Number of directions that SIGReg projects on.
        pooling: What of the backbone's tokens is projected; ``class`` is the mean patch token where
            there is no class token.

    Raises:
        InputError: If an option is out of range.
    """

    default_weights: ClassVar[Mapping[str, float]] = {"sigreg": 1.0}
    term_names: ClassVar[tuple[str, ...]] = ("invariance",)
    batch_keys: ClassVar[tuple[str, ...]] = ("global_crops",)

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = Recipe(
            lr=Schedule(5e-4, final=5e-7, warmup=0.01),
            lr_scaling="none",
            reference_batch=256,
            weight_decay=Schedule(0.05),
            layer_decay=1.0,
            patch_embed_lr=1.0,
            clip=None,
            freeze_last_layer=0.0,
        ),
        init_from: str | None = None,
        max_nonfinite: int = 2,
        projector: Callable[[int], Projector] = published_projector,
        trade_off: float = 0.05,
        directions: int = 1024,
        pooling: Pooling = "class",
    ) -> None:
        super().__init__(
            backbone,
            views=views,
            weights=weights,
            recipe=recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
        )
        if not 0 <= trade_off <= 1:
            raise InputError(f"trade_off must be in [0, 1], got {trade_off}")
        if directions < 1:
            raise InputError(f"directions must be positive, got {directions}")
        self.trade_off = trade_off
        self.n_directions = directions
        self.trained_pooling = pooling
        self.projector = projector(pooled_dim(backbone, pooling))

    def default_views(self, backbone: Backbone) -> Views:
        """Return :class:`MultiCrop` at the backbone's size, with the published scales."""
        patch = getattr(backbone, "patch_size", 32)
        return MultiCrop(
            global_size=backbone.img_size,
            local_size=max(round(backbone.img_size / patch * 98 / 224), 1) * patch,
            n_local=6,
            global_scale=(0.3, 1.0),
            local_scale=(0.05, 0.3),
            patch_size=patch,
            in_chans=backbone.in_chans,
        )

    def weight(self, term: str) -> float:
        """Return the weight of a term with the trade-off in it."""
        share = self.trade_off if term == "sigreg" else 1 - self.trade_off
        return share * super().weight(term)

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`MultiCrop`; its masks are not used."""
        crops = [batch[name] for name in ("global_crops", "local_crops") if name in batch]
        tokens = self.backbone.forward_many([x.transpose(0, 1).flatten(0, 1) for x in crops])
        pooled = torch.cat([group.pool(self.trained_pooling) for group in tokens])
        # (V, B, K), the global crops first; all crops share the projector's batch norms.
        projected = self.projector(pooled)
        precise = projected.to(torch.promote_types(projected.dtype, torch.float32))
        embeddings = precise.unflatten(0, (-1, len(crops[0])))
        centre = embeddings[: crops[0].shape[1]].mean(0)
        terms = {}
        if self.weight("invariance") != 0:
            terms["invariance"] = (embeddings - centre).square().mean()
        if self.monitoring:
            self.monitored |= embedding_statistics(embeddings[0])
        return terms | self.regulariser(embeddings.unbind(0))

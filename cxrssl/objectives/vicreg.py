"""VICReg: invariance between two views, variance and covariance over the batch."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from cxrssl.backbones import Backbone, Pooling, pooled_dim
from cxrssl.heads import Projector
from cxrssl.losses import embedding_statistics, vicreg_terms
from cxrssl.objectives.base import Objective
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import PairViews, Views

__all__ = ["VICReg", "vicreg_recipe"]


def vicreg_recipe(warmup: float) -> Recipe:
    """Return VICReg's LARS: the rate for a batch of 256 is 0.2, linear in the batch.

    Args:
        warmup: Share of the run spent in warm-up.
    """
    return Recipe(
        optimizer="lars",
        lr=Schedule(0.2, final=2e-4, warmup=warmup, warmup_end=False),
        lr_scaling="linear",
        scale_final=True,
        reference_batch=256,
        weight_decay=Schedule(1e-6),
        layer_decay=1.0,
        patch_embed_lr=1.0,
        clip=None,
        freeze_last_layer=0.0,
    )


class VICReg(Objective):
    """VICReg (Bardes, Ponce, LeCun, 2022, arXiv 2105.04906) as its released code trains it.

    Two views of an image pass through the backbone and the expander one after the other, so that
    batch norms see one kind of view at a time. Terms, each with its weight:

    - ``invariance`` (25): the mean squared distance between the embeddings of the two views;
    - ``variance`` (25): by how much the standard deviations of the embeddings fall short of 1, the
      mean of both views;
    - ``covariance`` (1): the squared off-diagonal covariances over the width, the *sum* of both
      views as released;
    - ``sigreg`` (0): SIGReg of both embeddings.

    Variance and covariance are those of the batch over all processes. With several, set
    ``trainer.sync_batchnorm``, so that the batch norms' are too.

    Args:
        backbone: Any backbone; the published one is a ResNet-50 with ``zero_init_residual``.
        views: :class:`PairViews` by default.
        weights: See :class:`Objective`.
        recipe: LARS by default, with the released rate for a batch of 2048 and a warm-up of 10 of
            100 epochs. For a ViT, AdamW is usual; see ``examples/recipes/mlvicx_vitb16_224.yaml``.
        init_from: See :class:`Objective`.
        max_nonfinite: See :class:`Objective`.
        expander: Makes the expander for an embedding's width; three layers of 8192 by default.
        pooling: What of the backbone's tokens is expanded: the ``mean`` patch token (of a ConvNet
            the pooled map), the ``class`` token, or ``both``.
    """

    default_weights: ClassVar[Mapping[str, float]] = {
        "invariance": 25.0,
        "variance": 25.0,
        "covariance": 1.0,
    }
    term_names: ClassVar[tuple[str, ...]] = ("invariance", "variance", "covariance")
    batch_keys: ClassVar[tuple[str, ...]] = ("views",)
    fewest_images = 2

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = vicreg_recipe(warmup=0.1),
        init_from: str | None = None,
        max_nonfinite: int = 2,
        expander: Callable[[int], Projector] = Projector,
        pooling: Pooling = "mean",
    ) -> None:
        super().__init__(
            backbone,
            views=views,
            weights=weights,
            recipe=recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
        )
        self.trained_pooling = pooling
        self.expander = expander(pooled_dim(backbone, pooling))

    def default_views(self, backbone: Backbone) -> Views:
        """Return :class:`PairViews` at the backbone's size."""
        return PairViews(image_size=backbone.img_size, in_chans=backbone.in_chans)

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`PairViews`."""
        first, second = (
            self.expander(self.backbone(view).pool(self.trained_pooling))
            for view in batch["views"].unbind(1)
        )
        if self.monitoring:
            self.monitored |= embedding_statistics(first)
        terms = vicreg_terms(first, second)
        wanted = {name: term for name, term in terms.items() if self.weight(name) != 0}
        return wanted | self.regulariser([first, second])

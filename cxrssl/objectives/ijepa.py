"""I-JEPA: blocks of one image, each predicted from its context."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from cxrssl.backbones import Backbone
from cxrssl.heads import Predictor
from cxrssl.losses import TokenDistance
from cxrssl.objectives.jepa import JEPA
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.vit_only import vit_only
from cxrssl.schedules import Schedule
from cxrssl.views import MaskedView, Views

__all__ = ["IJEPA"]


def published_predictor(dim: int, actions: int) -> Predictor:
    """Return the predictor of the released ViT-H: 384 wide, 12 blocks deep, 16 heads."""
    return Predictor(dim, actions, depth=12, heads=16)


class IJEPA(JEPA):
    """I-JEPA (Assran et al., 2023, arXiv 2301.08243) as its released code trains it.

    Terms, each with its weight:

    - ``prediction``: the mean distance between predicted and wanted tokens, each target block
      predicted alone from each context;
    - ``variance`` and ``sigreg`` (weight 0): see :class:`JEPA`.

    Args:
        backbone: See :class:`JEPA`.
        views: :class:`MaskedView` by default.
        weights: See :class:`JEPA`.
        recipe: See :class:`Objective`; the default is the published recipe of ViT-H/14.
        init_from: See :class:`JEPA`.
        max_nonfinite: See :class:`Objective`.
        predictor: See :class:`JEPA`; 12 blocks and, as many as the ViT-H has, 16 heads by default.
        momentum: See :class:`JEPA`.
        distance: See :class:`JEPA`.
        target_blocks: See :class:`JEPA`.
        code_grid: See :class:`JEPA`.
    """

    term_names: ClassVar[tuple[str, ...]] = ("prediction", "variance")
    batch_keys: ClassVar[tuple[str, ...]] = ("image", "context_index", "target_index")

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = Recipe(
            lr=Schedule(1e-3, final=1e-6, start=2e-4, warmup=40 / 300, from_one=True),
            lr_scaling="none",
            reference_batch=2048,
            weight_decay=Schedule(0.04, final=0.4, from_one=True),
            layer_decay=1.0,
            patch_embed_lr=1.0,
            clip=None,
            freeze_last_layer=0.0,
        ),
        init_from: str | None = None,
        max_nonfinite: int = 2,
        predictor: Callable[[int, int], Predictor] = published_predictor,
        momentum: Schedule = Schedule(0.996, final=1.0, shape="linear"),
        distance: TokenDistance = "smooth_l1",
        target_blocks: int = 1,
        code_grid: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            predictor,
            0,
            views=views,
            weights=weights,
            recipe=recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
            momentum=momentum,
            distance=distance,
            target_blocks=target_blocks,
            code_grid=code_grid,
        )

    def default_views(self, backbone: Backbone) -> Views:
        """Return :class:`MaskedView` at the backbone's size."""
        vit = vit_only(backbone, "IJEPA")
        return MaskedView(
            image_size=vit.grid[0] * vit.patch_size,
            patch_size=vit.patch_size,
            in_chans=vit.in_chans,
        )

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`MaskedView`."""
        images = batch["image"]  # (B, C, H, W)
        contexts, blocks = batch["context_index"], batch["target_index"]  # (B, E, Kc), (B, P, Kt)
        n_contexts, n_blocks = contexts.shape[1], blocks.shape[1]
        wanted = self.targets(images, blocks.flatten(1)).unflatten(1, blocks.shape[1:])
        wanted = wanted[:, None].expand(-1, n_contexts, -1, -1, -1).flatten(0, 2)

        context, means = self._context(
            images.repeat_interleave(n_contexts, 0), contexts.flatten(0, 1)
        )
        context = context[:, None].expand(-1, n_blocks, -1, -1).flatten(0, 1)
        codes = self._codes(blocks.flatten(0, 1)).unflatten(0, (-1, n_blocks))
        codes = codes[:, None].expand(-1, n_contexts, -1, -1, -1).flatten(0, 2)
        predicted = self.predictor(context, codes)  # (B E P, Kt, D)

        terms = {"prediction": self._loss(predicted, wanted)}
        if self.weight("variance") != 0:
            terms["variance"] = self._variance([predicted])
        terms |= self.regulariser(means.unflatten(0, (-1, n_contexts)).unbind(1))
        if self.monitoring:
            self._monitor([predicted], wanted)
        return terms

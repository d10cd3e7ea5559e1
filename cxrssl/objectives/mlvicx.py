"""MLVICX: VICReg on the whole image and on features fused from several levels."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from cxrssl.backbones import Backbone, ContextBottleneck, Pooling, Tokens, ViT, pooled_dim
from cxrssl.errors import InputError
from cxrssl.heads import MultiLevelHead, Projector
from cxrssl.losses import embedding_statistics, vicreg_terms
from cxrssl.objectives.base import Objective
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.vicreg import vicreg_recipe
from cxrssl.views import PairViews, Views

__all__ = ["MLVICX"]

_PARTS = ("invariance", "variance", "covariance")
_WIDTHS = (4096, 4096, 4096)


def published_global_head(dim: int) -> Projector:
    """Return three layers of 4096 with a batch norm after the last one too."""
    return Projector(dim, _WIDTHS, final_bn=True)


def published_local_head(dims: Sequence[int], size: int | None) -> MultiLevelHead:
    """Return the fusion of all levels in 512 channels and three layers of 4096."""
    return MultiLevelHead(dims, size, widths=_WIDTHS, final_bn=True)


class MLVICX(Objective):
    """MLVICX (Singh et al., 2024, arXiv 2403.11504): variance and covariance at several levels.

    Two views of an image pass through one backbone without teacher, predictor or stopped gradient.
    Each gives a *global* embedding of the last level, and a *local* one that a head fuses from all
    levels. Context bottlenecks gate the levels: in line, so that the next stage sees the gated
    level, or on the side, where only the heads do. Terms, each with its weight:

    - ``global_invariance`` (25), ``global_variance`` (25), ``global_covariance`` (1);
    - ``local_invariance``, ``local_variance``, ``local_covariance``: the same of the local
      embeddings, times ``lambda_local``;
    - ``sigreg`` (0): SIGReg of the embeddings of the branches that have a term.

    See :class:`VICReg` for what they are; variance and covariance are those of the batch over all
    processes. With several, set ``trainer.sync_batchnorm``.

    Of the published code these defaults keep the batch norm after the heads' last layer, because of
    which the variance term begins at exactly 0 (``final_bn``, an option of the heads). They do not
    keep that the fusion's convolutions were never trained (``train_level_convs``), nor the gates'
    loss downstream: in-line gates are part of the encoder, and are saved with it.

    A ViT takes the place of the published ResNet-18 so: four equally spaced blocks are its levels,
    each with a layer norm of its own (the last with the backbone's), patch tokens alone; all levels
    share one grid, so that nothing is resized.

    Args:
        backbone: Any backbone; see :class:`Objective`.
        views: :class:`PairViews` by default.
        weights: See :class:`Objective`.
        recipe: LARS by default, with a rate of 0.2 for a batch of 256 and a warm-up of 2 of 300
            epochs. For a ViT, AdamW is usual; see ``examples/recipes/mlvicx_vitb16_224.yaml``.
        init_from: See :class:`Objective`.
        max_nonfinite: See :class:`Objective`.
        global_head: Makes the expander of the global embedding for its width.
        local_head: Makes the head of the local embedding for the levels' widths and the side they
            are resized to, None where they are not.
        levels: Numbers of the levels, in order, the last one last; all stages of a ConvNet, four
            equally spaced blocks of a ViT if left out.
        stem: Whether the embedded patches of a ViT are a level too, the first one.
        gating: ``inline``, ``side`` or ``off``; by default ``inline`` in a ConvNet, as published,
            and ``side`` in a ViT, whose weights then remain of use without gates. In-line gates of
            a ViT are residual and begin as the identity; a backbone may have them already.
        gate_kernel: Side of the gates' spatial convolution; 7 if left out, but 3 in a ViT whose
            grid has at most 7 rows. Stages of several sizes need one number.
        lambda_local: Factor on the local terms; 0 leaves the local head out.
        train_level_convs: Whether the convolutions that bring the levels to one width are trained;
            the published code created them after its optimiser, so that they never were.
        fusion_size: Side in pixels that the levels of a ConvNet are resized to.
        pooling: What is the global embedding: the mean of the last level's gated patches, the class
            token, or both.

    Raises:
        InputError: If the levels are not the backbone's, nothing is left to train, or an option is
            out of range.
    """

    default_weights: ClassVar[Mapping[str, float]] = {
        f"{branch}_{part}": weight
        for branch in ("global", "local")
        for part, weight in zip(_PARTS, (25.0, 25.0, 1.0), strict=True)
    }
    term_names: ClassVar[tuple[str, ...]] = tuple(default_weights)
    batch_keys: ClassVar[tuple[str, ...]] = ("views",)
    fewest_images = 2

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = vicreg_recipe(warmup=2 / 300),
        init_from: str | None = None,
        max_nonfinite: int = 2,
        global_head: Callable[[int], Projector] = published_global_head,
        local_head: Callable[[Sequence[int], int | None], MultiLevelHead] = published_local_head,
        levels: Sequence[int] | None = None,
        stem: bool = False,
        gating: Literal["inline", "side", "off"] | None = None,
        gate_kernel: int | None = None,
        lambda_local: float = 1.0,
        train_level_convs: bool = True,
        fusion_size: int = 64,
        pooling: Pooling = "mean",
    ) -> None:
        where = _checked_gating(gating, backbone)
        if not 0 <= lambda_local < float("inf"):
            raise InputError(f"lambda_local must be finite and not negative, got {lambda_local}")
        numbers = _checked_levels(backbone, levels, stem)
        present = backbone.arguments.get("gate_kernel")
        kernel = gate_kernel or present or backbone.default_gate_kernel
        if where == "inline":
            backbone.insert_gates(numbers, kernel)
        super().__init__(
            backbone,
            views=views,
            weights=weights,
            recipe=recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
        )
        self.lambda_local = lambda_local
        self.trained_pooling = pooling
        self.gating = where
        # The global branch alone reads the last level alone.
        local = self._trains("local")
        self.levels = numbers if local else numbers[-1:]
        self.stem = stem and local
        dims = [backbone.level_dims[number] for number in self.levels]
        dims = [backbone.embed_dim] * self.stem + dims
        self.norms = _norms(dims) if isinstance(backbone, ViT) else None
        gated = local or pooling != "class" or not backbone.has_class_token
        self.gates = _gates(dims, kernel) if where == "side" and gated else None
        if not any(map(self._trains, ("global", "local"))):
            raise InputError("all terms of both branches have weight 0: no embedding is left")
        if self._trains("global"):
            self.global_head = global_head(pooled_dim(backbone, pooling))
        if local:
            self.local_head = local_head(dims, None if self.norms is not None else fusion_size)
            self.local_head.fusion.requires_grad_(train_level_convs)

    def default_views(self, backbone: Backbone) -> Views:
        """Return :class:`PairViews` at the backbone's size."""
        return PairViews(image_size=backbone.img_size, in_chans=backbone.in_chans)

    def weight(self, term: str) -> float:
        """Return the weight of a term, with ``lambda_local`` in the local ones."""
        return super().weight(term) * (self.lambda_local if term.startswith("local_") else 1.0)

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`PairViews`."""
        first, second = (self.embeddings(view) for view in batch["views"].unbind(1))
        terms: dict[str, Tensor] = {}
        for branch in first:
            parts = vicreg_terms(first[branch], second[branch])
            terms |= {f"{branch}_{part}": term for part, term in parts.items()}
            if self.monitoring:
                statistics = embedding_statistics(first[branch])
                self.monitored |= {f"{branch}_{key}": value for key, value in statistics.items()}
        wanted = {name: term for name, term in terms.items() if self.weight(name) != 0}
        return wanted | self.regulariser([*first.values(), *second.values()])

    def embeddings(self, images: Tensor) -> dict[str, Tensor]:
        """Return the embeddings ``global`` and ``local``, each (B, K), of images (B, C, H, W)."""
        tokens = self._levels(images)
        maps = [level.map for level in tokens]
        if self.gates is not None:
            maps = [gate(level) for gate, level in zip(self.gates, maps, strict=True)]
        if self.monitoring:
            self._monitor_levels(maps)
        result: dict[str, Tensor] = {}
        if self._trains("global"):
            gated = tokens[-1]._replace(patches=maps[-1].flatten(2).transpose(1, 2))
            result["global"] = self.global_head(gated.pool(self.trained_pooling))
        if self._trains("local"):
            result["local"] = self.local_head(maps)
        return result

    def _levels(self, images: Tensor) -> list[Tokens]:
        """Return the tokens of every level, normalised where the backbone's are not."""
        if self.norms is None:
            return self.backbone.levels(images, self.levels)
        tokens = self.backbone.levels(images, self.levels, norm="last", stem=self.stem)
        return [
            level._replace(patches=norm(level.patches))
            for level, norm in zip(tokens, self.norms, strict=True)
        ]

    def _trains(self, branch: str) -> bool:
        return any(self.weight(f"{branch}_{part}") != 0 for part in _PARTS)

    @torch.no_grad()
    def _monitor_levels(self, maps: list[Tensor]) -> None:
        """Note the spread of each level over the batch, the mean over channels."""
        for number, level in enumerate(maps):
            if len(level) > 1:
                spread = level.mean((2, 3)).float().std(0).mean()
                self.monitored[f"level{number}_std"] = spread


def _checked_gating(
    gating: Literal["inline", "side", "off"] | None, backbone: Backbone
) -> Literal["inline", "side", "off"]:
    if gating not in (None, "inline", "side", "off"):
        raise InputError(f"gating must be 'inline', 'side' or 'off', got {gating!r}")
    present = backbone.arguments.get("gates")
    if present and gating not in (None, "inline"):
        raise InputError(
            f"the backbone has gates in line, after levels {present}: gating {gating!r} needs one "
            "without"
        )
    side = isinstance(backbone, ViT) and not present
    return gating or ("side" if side else "inline")


def _checked_levels(backbone: Backbone, levels: Sequence[int] | None, stem: bool) -> list[int]:
    """Return the numbers of the levels, counted from 0."""
    vit, depth = isinstance(backbone, ViT), len(backbone.level_dims)
    if stem and not vit:
        raise InputError("stem is for a ViT: a ConvNet's stem is its level 0")
    if levels is None:
        n = min(4, depth) if vit else depth
        return [(number + 1) * depth // n - 1 for number in range(n)]
    numbers = [number + depth if number < 0 else number for number in levels]
    rising = all(lower < higher for lower, higher in itertools.pairwise(numbers))
    if not numbers or not rising or numbers[0] < 0 or numbers[-1] != depth - 1:
        raise InputError(
            f"levels must rise and end with the last of the backbone's {depth}, {depth - 1}; got "
            f"{list(levels)}"
        )
    return numbers


def _norms(dims: Sequence[int]) -> nn.ModuleList:
    """Return a layer norm for each level of a ViT but the last, which the backbone normalises."""
    return nn.ModuleList([*(nn.LayerNorm(dim) for dim in dims[:-1]), nn.Identity()])


def _gates(dims: Sequence[int], kernel: int) -> nn.ModuleList:
    return nn.ModuleList(ContextBottleneck(dim, kernel=kernel) for dim in dims)

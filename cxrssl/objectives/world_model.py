"""CheXWorld: what another part of a radiograph looks like, where, and under which distortion."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cxrssl.backbones import Backbone, pick_tokens
from cxrssl.errors import InputError
from cxrssl.heads import Predictor
from cxrssl.losses import TokenDistance
from cxrssl.objectives.jepa import JEPA
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.vit_only import vit_only
from cxrssl.schedules import Schedule
from cxrssl.views import ACTION, IDENTITY, Views, WorldViews

__all__ = ["WorldModel"]


class WorldModel(JEPA):
    """CheXWorld (Yue et al., CVPR 2025, arXiv 2504.13820) as its released code trains it.

    Two crops of one radiograph are distorted. From some patches of a distorted crop the predictor
    tells, in the target encoder's space and without the distortion, the masked patches of the same
    crop (local anatomy) and those of the other crop, whose place it is given (global layout). It is
    also given the action, the parameters of the distortion (domain variation).

    Terms, each with its weight; one of weight 0 is not computed:

    - ``local`` (weight 0.5): the mean over both crops, each from itself;
    - ``global`` (weight 0.5): the mean over both crops, each from the other;
    - ``domain`` (weight 0.5, with ``domain="separate"`` only): each whole crop from its distortion;
    - ``variance`` (weight 0): see :class:`JEPA`.

    The paper's ablations: ``domain="off"`` is local and global; weights of 1 for ``local`` and 0
    for ``global`` are local and domain, and with ``domain="off"`` local alone; the default is all
    three in one; ``domain="separate"`` adds three losses; ``action=False`` and ``offset=False``
    hide one of the two conditions.

    Args:
        backbone: See :class:`JEPA`.
        views: :class:`WorldViews` by default.
        weights: See :class:`JEPA`.
        recipe: See :class:`Objective`; the default is the published one, at its batch of 2048.
        init_from: See :class:`JEPA`.
        max_nonfinite: See :class:`Objective`.
        predictor: See :class:`JEPA`.
        momentum: See :class:`JEPA`. Like the rate it stops before its end: the published schedules
            are stretched by 1.25.
        distance: See :class:`JEPA`.
        target_blocks: See :class:`JEPA`.
        domain: ``unified`` distorts every context; ``separate`` leaves the contexts of the other
            tasks as they are and adds a task of its own; ``off`` distorts nothing.
        action: Whether the predictor is told the action.
        offset: Whether the predictor is told where the other crop lies.
        elsewhere: Patches to predict outside the local task: the ``masked`` ones of the crop (the
            released code), or ``all`` (the paper, equations 6, 7 and 11).
        axis_order: ``published`` encodes the column first in context positions and the row first in
            target positions, which released weights need; ``unified`` the column first in both.
        code_grid: See :class:`JEPA`.

    Raises:
        InputError: If no task is left, or an option is unknown.
    """

    default_weights: ClassVar[Mapping[str, float]] = {
        "local": 0.5,
        "global": 0.5,
        "domain": 0.5,
        "variance": 0.0,
    }
    term_names: ClassVar[tuple[str, ...]] = ("local", "global", "domain", "variance")
    batch_keys: ClassVar[tuple[str, ...]] = (
        "context",
        "target",
        "action",
        "offset",
        "context_index",
        "target_index",
    )

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = Recipe(
            lr=Schedule(2e-4, final=1e-6, warmup=1 / 6, stretch=1.25),
            lr_scaling="none",
            reference_batch=2048,
            weight_decay=Schedule(0.05),
            layer_decay=1.0,
            patch_embed_lr=1.0,
            clip=1.0,
            freeze_last_layer=0.0,
            schedule_unit="micro_batch",
        ),
        init_from: str | None = None,
        max_nonfinite: int = 2,
        predictor: Callable[[int, int], Predictor] = Predictor,
        momentum: Schedule = Schedule(0.996, final=1.0, stretch=1.25),
        distance: TokenDistance = "mse",
        target_blocks: int = 1,
        domain: Literal["unified", "separate", "off"] = "unified",
        action: bool = True,
        offset: bool = True,
        elsewhere: Literal["masked", "all"] = "masked",
        axis_order: Literal["published", "unified"] = "published",
        code_grid: int | None = None,
    ) -> None:
        _check_choice("domain", domain, ("unified", "separate", "off"))
        _check_choice("elsewhere", elsewhere, ("masked", "all"))
        _check_choice("axis_order", axis_order, ("published", "unified"))
        told = action and domain != "off"
        super().__init__(
            backbone,
            predictor,
            len(ACTION) if told else 0,
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
        if domain != "separate" and (weights or {}).get("domain", 0) != 0:
            raise InputError(
                f"weights.domain has no effect with domain={domain!r}: only domain='separate' has "
                "a term of its own"
            )
        self.domain = domain
        self.told_offset = offset
        self.elsewhere = elsewhere
        self.target_order = "row_first" if axis_order == "published" else "column_first"
        if not any(map(self._has, ("local", "global", "domain"))):
            raise InputError("all tasks have weight 0: nothing is left to train")

    def default_views(self, backbone: Backbone) -> Views:
        """Return :class:`WorldViews` at the backbone's size."""
        vit = vit_only(backbone, "WorldModel")
        return WorldViews(
            image_size=vit.grid[0] * vit.patch_size,
            patch_size=vit.patch_size,
            in_chans=vit.in_chans,
        )

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`WorldViews`.

        Crops are handled crop-major: M = 2 B rows, all images' first crops before their second.
        """
        crops = {name: batch[name].transpose(0, 1).flatten(0, 1) for name in self.batch_keys}
        passes: dict[str, Pass] = {}
        if self._has("local") or self._has("global"):
            passes |= self._anatomy(crops)
        if self._has("domain"):
            passes["domain"] = self._distortion(crops)
        predicted = self._predict_together(passes)
        wanted = self._targets_of(passes, crops)
        terms = {name: self._loss(predicted[name], wanted[name]) for name in passes}
        if self.weight("variance") != 0:
            terms["variance"] = self._variance(list(predicted.values()))
        # Passes of one context have one mean, which counts once.
        means = dict.fromkeys(each.mean for each in passes.values())
        terms |= self.regulariser([crop for mean in means for crop in mean.chunk(2)])
        if self.monitoring:
            self._monitor(list(predicted.values()), next(iter(wanted.values())))
        return terms

    @torch.no_grad()
    def encode_context(self, images: Tensor, index: Tensor | None = None) -> Tensor:
        """Return what the predictor sees of crops: tokens (B, Kc, d), in evaluation mode.

        Args:
            images: Normalised crops (B, C, H, W).
            index: Patches (B, Kc) that are seen; all if left out.
        """
        with _evaluating(self.backbone, self.predictor):
            return self._context(images, index)[0]

    @torch.no_grad()
    def predict(
        self,
        context: Tensor,
        *,
        target_index: Tensor | None = None,
        offset: Tensor | None = None,
        action: Tensor | None = None,
    ) -> Tensor:
        """Return predicted tokens (B, Kt, D), in evaluation mode.

        A condition the model is not told (``action=False``, ``offset=False``) is ignored.

        Args:
            context: What :meth:`encode_context` returned, (B, Kc, d).
            target_index: Patches (B, Kt) to predict; all if left out.
            offset: Where their crop lies in the context's frame, (B, 4) as :class:`WorldViews`
                makes it; the context's own crop if left out.
            action: What was done to the context, (B, 5); nothing if left out.
        """
        index = self._all_patches(len(context)) if target_index is None else target_index
        with _evaluating(self.predictor):
            predicted: Tensor = self.predictor(
                context,
                self._codes(index, offset if self.told_offset else None, self.target_order),
                self._told(self._identity(context) if action is None else action),
            )
            return predicted

    def _has(self, term: str) -> bool:
        return self.weight(term) != 0 and (term != "domain" or self.domain == "separate")

    def _anatomy(self, crops: dict[str, Tensor]) -> dict[str, "Pass"]:
        """Return the passes of both crops from themselves and from each other."""
        distorted = self.domain == "unified"
        images = crops["context" if distorted else "target"]
        context, mean = self._context(images, crops["context_index"])  # (M, Kc, d), (M, D)
        action = self._told(crops["action"] if distorted else self._identity(images))
        passes = {}
        if self._has("local"):
            index = crops["target_index"]
            codes = self._codes(index, order=self.target_order)
            passes["local"] = Pass(context, codes, action, index, mean)
        if self._has("global"):
            index = self._elsewhere(crops["target_index"])
            offset = crops["offset"] if self.told_offset else None
            codes = self._codes(index, offset, self.target_order)
            other = None if action is None else _swap(action)
            passes["global"] = Pass(_swap(context), codes, other, index, mean)
        return passes

    def _distortion(self, crops: dict[str, Tensor]) -> "Pass":
        """Return the pass of both crops from the whole of their distortions."""
        index = self._elsewhere(crops["target_index"])
        context, mean = self._context(crops["context"], None)
        return Pass(
            context,
            self._codes(index, order=self.target_order),
            self._told(crops["action"]),
            index,
            mean,
        )

    def _predict_together(self, passes: dict[str, "Pass"]) -> dict[str, Tensor]:
        """Return predictions by name; passes of one shape share a call of the predictor."""
        predicted: dict[str, Tensor] = {}
        for shape in dict.fromkeys(each.shape for each in passes.values()):
            alike = {name: each for name, each in passes.items() if each.shape == shape}
            together = self.predictor(
                torch.cat([each.context for each in alike.values()]),
                torch.cat([each.codes for each in alike.values()]),
                _cat([each.action for each in alike.values()]),
            )
            predicted |= zip(alike, together.chunk(len(alike)), strict=True)
        return predicted

    def _targets_of(self, passes: dict[str, "Pass"], crops: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the wanted tokens (M, Kt, D) by name; the target encoder runs once."""
        masked = crops["target_index"]
        if all(each.patches is masked for each in passes.values()):
            return dict.fromkeys(passes, self.targets(crops["target"], masked))
        targets = self.targets(crops["target"])
        return {name: pick_tokens(targets, each.patches) for name, each in passes.items()}

    def _elsewhere(self, masked: Tensor) -> Tensor:
        return masked if self.elsewhere == "masked" else self._all_patches(len(masked))

    def _told(self, action: Tensor) -> Tensor | None:
        return action if self.predictor.actions else None

    def _identity(self, images: Tensor) -> Tensor:
        """Return the action (M, 5) of doing nothing."""
        identity = getattr(self.views, "identity_action", IDENTITY)
        action = torch.as_tensor(identity, dtype=torch.float32, device=images.device)
        return action.expand(len(images), -1)


class Pass(NamedTuple):
    """What the predictor is asked: M sequences of context tokens and places to predict."""

    context: Tensor
    """(M, Kc, d)."""
    codes: Tensor
    """(M, Kt, d)."""
    action: Tensor | None
    """(M, 5)."""
    patches: Tensor
    """Patches (M, Kt) of the target crop."""
    mean: Tensor
    """Mean context tokens (M, D) of the backbone, in the crops' own order."""

    @property
    def shape(self) -> tuple[int, int]:
        """Lengths Kc and Kt."""
        return self.context.shape[1], self.patches.shape[1]


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Put modules into evaluation mode for a while."""
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.train(training)


def _swap(rows: Tensor) -> Tensor:
    """Return rows (2 B, ...) with the two crops of each image exchanged."""
    return torch.cat(rows.chunk(2)[::-1])


def _cat(parts: list[Tensor | None]) -> Tensor | None:
    given = [part for part in parts if part is not None]
    return torch.cat(given) if given else None


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}")

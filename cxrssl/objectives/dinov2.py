"""DINOv2: DINO between crops, iBOT on masked patches, KoLeo within the batch."""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from cxrssl.backbones import Backbone, Tokens, ViT
from cxrssl.errors import InputError
from cxrssl.heads import DINOHead
from cxrssl.losses import (
    SoftmaxCentering,
    dino_global_loss,
    dino_local_loss,
    ibot_loss,
    koleo_loss,
    mask_weights,
    sinkhorn,
)
from cxrssl.objectives.base import Objective
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.teacher import Teacher
from cxrssl.objectives.vit_only import vit_only
from cxrssl.schedules import Schedule
from cxrssl.views import MultiCrop, Views

__all__ = ["DINOv2"]

_DINO_TERMS = ("dino_local", "dino_global")


class DINOv2(Objective):
    """DINOv2 (Oquab et al., 2023, arXiv 2304.07193) as its released code trains it.

    The defaults are those of its short recipe (ViT-L/16), which also gives the backbone
    ``drop_path=0.3`` and ``layer_scale=1e-5``; the long recipe is in ``examples/recipes``.

    The teacher sees the two global crops; the student sees them with patches masked, and the local
    crops. Terms, each with its weight:

    - ``dino_local`` + ``dino_global``: the mean cross-entropy over all pairs of different crops;
    - ``ibot``: cross-entropy at the masked patches, averaged over all global crops;
    - ``koleo`` (weight 0.1): the sum over the two global crops of the KoLeo regulariser;
    - ``sigreg`` (weight 0): SIGReg of the class tokens of the two global crops.

    Args:
        backbone: Student, a :class:`ViT` with a class token; see :class:`Objective`.
        views: :class:`MultiCrop` by default.
        weights: See :class:`Objective`. With ``ibot`` at 0 nothing is masked.
        recipe: See :class:`Objective`.
        init_from: See :class:`Objective`.
        max_nonfinite: See :class:`Objective`.
        dino_head: Makes the head for a token width.
        ibot_head: Makes a head of its own for the patches; they share the DINO head if left out.
        centering: ``softmax`` with a moving centre or ``sinkhorn``.
        center_momentum: Share of the old centre kept at a step.
        center_reduction: See :class:`SoftmaxCentering`.
        sinkhorn_iterations: Rounds of Sinkhorn-Knopp.
        student_temperature: Temperature of the student's softmax.
        teacher_temperature: Temperature of the teacher's softmax.
        momentum: Momentum of the teacher.
        koleo_scope: See :func:`koleo_loss`.
    """

    backbone: ViT
    default_weights: ClassVar[Mapping[str, float]] = {"koleo": 0.1}
    term_names: ClassVar[tuple[str, ...]] = ("dino_local", "dino_global", "ibot", "koleo")
    batch_keys: ClassVar[tuple[str, ...]] = ("global_crops", "masks")

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = Recipe(),
        init_from: str | None = None,
        max_nonfinite: int = 2,
        dino_head: Callable[[int], DINOHead] = DINOHead,
        ibot_head: Callable[[int], DINOHead] | None = None,
        centering: Literal["softmax", "sinkhorn"] = "softmax",
        center_momentum: float = 0.9,
        center_reduction: Literal["rank", "global"] = "rank",
        sinkhorn_iterations: int = 3,
        student_temperature: float = 0.1,
        teacher_temperature: Schedule = Schedule(0.07, start=0.04, warmup=0.3),
        momentum: Schedule = Schedule(0.992, final=1.0),
        koleo_scope: Literal["rank", "global"] = "rank",
    ) -> None:
        backbone = vit_only(backbone, "DINOv2")
        if not backbone.arguments["class_token"]:
            raise InputError("DINOv2 compares class tokens: build the backbone with class_token")
        super().__init__(
            backbone,
            views=views,
            weights=weights,
            recipe=recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
        )
        patch = getattr(self.views, "patch_size", backbone.patch_size)
        if patch != backbone.patch_size:
            raise InputError(
                f"the views mask patches of {patch} px but the backbone's have "
                f"{backbone.patch_size}; set patch_size of both to the same number"
            )
        dim = backbone.embed_dim
        self.with_ibot = self.weight("ibot") != 0
        self.dino_head = dino_head(dim)
        self.ibot_head = ibot_head(dim) if self.with_ibot and ibot_head is not None else None
        if self.with_ibot:
            start = backbone.pretrained_mask_token
            self.mask_token = nn.Parameter(torch.zeros(1, dim) if start is None else start.clone())
            if self.ibot_head is not None and not any(map(self.weight, _DINO_TERMS)):
                self.dino_head.requires_grad_(False)  # nothing would train it
        self.centering = centering
        self.sinkhorn_iterations = sinkhorn_iterations
        if centering == "softmax":
            patch_head = self.dino_head if self.ibot_head is None else self.ibot_head
            self.dino_center, self.ibot_center = (
                SoftmaxCentering(head.n_prototypes, center_momentum, center_reduction)
                for head in (self.dino_head, patch_head)
            )
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.koleo_scope = koleo_scope
        self.teacher = Teacher(self._student(), momentum)

    def default_views(self, backbone: Backbone) -> Views:
        """Return :class:`MultiCrop` at the backbone's size."""
        vit = vit_only(backbone, "DINOv2")
        patch = vit.patch_size
        return MultiCrop(
            global_size=vit.grid[0] * patch,
            local_size=max(round(vit.grid[0] * 96 / 224), 1) * patch,
            patch_size=patch,
            in_chans=vit.in_chans,
        )

    @property
    def encoder(self) -> ViT:
        """The teacher's backbone."""
        return cast(ViT, self._teacher_parts["backbone"])

    @property
    def n_prototypes(self) -> int:
        """Number of prototypes of the class tokens' head."""
        return self.dino_head.n_prototypes

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`MultiCrop`."""
        crops = _crop_major(batch["global_crops"])  # (2B, C, H, W)
        masks = _crop_major(batch["masks"]) if self.with_ibot else None  # (2B, N)
        index = None if masks is None else masks.flatten().nonzero()[:, 0]  # (M,)
        small = batch.get("local_crops")
        n_local = 0 if small is None else small.shape[1]
        temperature = self.scheduled(self.teacher_temperature, progress)

        cls_target, patch_target = self._teacher_targets(crops, index, temperature)
        inputs = [crops] if small is None else [crops, _crop_major(small)]
        tokens = self.backbone.forward_many(
            inputs,
            masks=[masks, *[None] * (len(inputs) - 1)],
            mask_token=self.mask_token if self.with_ibot else None,
        )
        logits_global, logits_local, logits_patch = self._student_logits(tokens, index)

        terms: dict[str, Tensor] = {}
        student_t = self.student_temperature
        if logits_local is not None and self.weight("dino_local") != 0:
            logits = logits_local.unflatten(0, (n_local, -1))  # (L, B, K)
            terms["dino_local"] = dino_local_loss(logits, cls_target, student_t)
        if self.weight("dino_global") != 0:
            logits = logits_global.unflatten(0, (2, -1))  # (2, B, K)
            terms["dino_global"] = dino_global_loss(logits, cls_target, n_local, student_t)
        if self.weight("koleo") != 0:
            cls = _cls(tokens[0]).unflatten(0, (2, -1))
            parts = [koleo_loss(crop, self.koleo_scope) for crop in cls]
            terms["koleo"] = torch.stack(parts).sum()
        terms |= self.regulariser(_cls(tokens[0]).chunk(2))
        if masks is not None and index is not None and logits_patch is not None:
            assert patch_target is not None
            weights = mask_weights(masks, index)
            terms["ibot"] = ibot_loss(logits_patch, patch_target, weights, len(masks), student_t)
        if self.monitoring:
            self._monitor(cls_target, logits_global.detach().unflatten(0, (2, -1)))
        return terms

    def update_teacher(self, progress: float) -> None:
        """Move the teacher and the centres."""
        self.teacher.update(self._student(), progress, self.schedule_entries)
        if self.centering == "softmax":
            self.dino_center.update()
            self.ibot_center.update()

    def restart_teacher(self) -> None:
        """Make the teacher equal to the student."""
        self.teacher.restart(self._student())

    def forget_step(self) -> None:
        """Drop the logits the centres have seen since the last step."""
        if self.centering == "softmax":
            self.dino_center.forget()
            self.ibot_center.forget()

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return backbone (mask token included) and each head."""
        groups = super().clip_groups()
        groups["backbone"] += groups.pop("self", [])
        return groups

    def _student(self) -> nn.ModuleDict:
        """Return what the teacher averages."""
        parts: dict[str, nn.Module] = {"backbone": self.backbone, "dino_head": self.dino_head}
        if self.ibot_head is not None:
            parts["ibot_head"] = self.ibot_head
        return nn.ModuleDict(parts)

    @property
    def _teacher_parts(self) -> nn.ModuleDict:
        return cast(nn.ModuleDict, self.teacher.module)

    @torch.no_grad()
    def _teacher_targets(
        self, crops: Tensor, index: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return probabilities of the class tokens (2, B, K) and of the masked patches (M, K)."""
        teacher = self._teacher_parts
        tokens: Tokens = teacher["backbone"](crops)
        cls = self._probabilities(teacher["dino_head"](_cls(tokens)), temperature, "dino_center")
        cls = cls.unflatten(0, (2, -1))
        if index is None:
            return cls, None
        head = teacher["ibot_head" if self.ibot_head is not None else "dino_head"]
        patches = tokens.patches.flatten(0, 1).index_select(0, index)
        return cls, self._probabilities(head(patches), temperature, "ibot_center")

    def _probabilities(self, logits: Tensor, temperature: float, center: str) -> Tensor:
        if self.centering == "sinkhorn":
            return sinkhorn(logits, temperature, self.sinkhorn_iterations)
        centering: SoftmaxCentering = getattr(self, center)
        probabilities: Tensor = centering(logits, temperature)
        if self.training:
            centering.observe(logits)
        return probabilities

    def _student_logits(
        self, tokens: list[Tokens], index: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return logits of global crops (2B, K), local crops (L B, K) and masked patches (M, K).

        Whatever shares a head goes through it in one call; only masked patches go at all.
        """
        rows = [_cls(group) for group in tokens]
        patches = None
        if index is not None:
            patches = tokens[0].patches.flatten(0, 1).index_select(0, index)
        if patches is not None and self.ibot_head is None:
            rows.append(patches)
        logits = list(self.dino_head(torch.cat(rows)).split([len(group) for group in rows]))
        patch_logits = None
        if patches is not None:
            patch_logits = logits.pop() if self.ibot_head is None else self.ibot_head(patches)
        return logits[0], logits[1] if len(logits) > 1 else None, patch_logits

    @torch.no_grad()
    def _monitor(self, teacher: Tensor, student: Tensor) -> None:
        """Note how the teacher uses its prototypes and whether the student agrees with it."""
        entropy = -(teacher * teacher.clamp(min=1e-30).log()).sum(-1).mean()
        choice = teacher.argmax(-1)  # (2, B)
        self.monitored |= {
            "teacher_entropy": entropy,
            "prototype_usage": torch.tensor(choice.unique().numel() / self.n_prototypes),
            "student_teacher_agreement": (student.flip(0).argmax(-1) == choice).float().mean(),
        }


def _crop_major(crops: Tensor) -> Tensor:
    """Return crops (B, V, ...) as (V B, ...): all images' first crops, then their second ones."""
    return crops.transpose(0, 1).flatten(0, 1)


def _cls(tokens: Tokens) -> Tensor:
    assert tokens.cls is not None  # the constructor has checked the backbone
    return tokens.cls

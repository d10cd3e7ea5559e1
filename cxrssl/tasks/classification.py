"""Findings of an image from the tokens of an encoder, frozen or fine-tuned."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrssl.analysis import multilabel_scores
from cxrssl.backbones import Backbone, Tokens
from cxrssl.errors import InputError
from cxrssl.heads import ClassificationHead, GLoRI, LinearProbe
from cxrssl.losses import (
    UncertainPolicy,
    asymmetric_loss,
    labels_as_published,
    multilabel_bce,
    resolve_labels,
)
from cxrssl.losses.distributed import all_sum
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.tasks.base import Task, unread
from cxrssl.tasks.caching import pack_levels, packed_shapes, unpack_levels
from cxrssl.tasks.candidates import Candidates, NewHead, make_candidates
from cxrssl.tasks.classification_results import (
    attention_figure,
    classification_results,
    examples,
)
from cxrssl.tasks.encoder import fingerprint
from cxrssl.tasks.outputs import Outputs
from cxrssl.tasks.results import Results, TestImages
from cxrssl.views import Views
from cxrssl.views.targets import Targets

__all__ = ["Classification"]

PROBE_RECIPE = Recipe(
    lr=Schedule(1e-3, final=0.0),
    lr_scaling="none",
    weight_decay=Schedule(1e-4),
    layer_decay=1.0,
    patch_embed_lr=1.0,
    clip=None,
    freeze_last_layer=0.0,
)
"""AdamW without warm-up and a cosine to 0, as CheXFound trains its heads."""


class Classification(Task):
    """Multi-label classification with any head on an encoder.

    Labels are 1, 0, -1 (uncertain) or missing; missing ones are left out of every loss and measure.
    Several heads, or one with several learning rates, are trained side by side on the same features
    and chosen among by their macro score on the validation images; test images have no say. A
    candidate whose loss is not finite any more is dropped with a warning, the others go on.

    Args:
        encoder: See :class:`Task`.
        findings: Label columns of the index, in the order of the logits.
        head: :class:`LinearProbe`, :class:`AttentiveProbe` or :class:`GLoRI`.
        candidates: Several heads by name, in the place of ``head``.
        learning_rates: Learning rates each head is tried with, at the top of the recipe's schedule.
        frozen: Whether the encoder stays as it is; otherwise it is fine-tuned.
        cache: Folder in which features of a frozen encoder are kept: each image is encoded once, in
            the deterministic view, and found again by later runs.
        cache_dtype: How cached numbers are kept.
        loss: ``bce``; ``asymmetric``; or their sum, CheXFound's ``--focal-loss``.
        reduction: ``mean`` over known labels, or their ``sum``, as CheXFound has it.
        uncertain: What -1 means in training: ``ignore``, ``zeros``, ``ones`` or ``smoothing``, for
            all findings or by name. In evaluation uncertain labels are left out.
        published_mask: Let all candidates but the first take missing labels for absent findings, a
            mistake of CheXFound's code, to reproduce its numbers.
        select: Score by which candidates are chosen.
        views: See :class:`Task`.
        recipe: See :class:`Task`; AdamW with a cosine from 1e-3 by default.
        drop_path: See :class:`Task`.
        patch_size: See :class:`Task`.
        drop_gates: See :class:`Task`.
        max_nonfinite: See :class:`Task`.

    Raises:
        InputError: If options do not go together, or the encoder has too few levels for a head.
    """

    alive: Tensor
    chosen: Tensor

    def __init__(
        self,
        encoder: Backbone | str,
        findings: list[str],
        head: NewHead = LinearProbe,
        *,
        candidates: dict[str, NewHead] | None = None,
        learning_rates: list[float] | None = None,
        frozen: bool = True,
        cache: str | None = None,
        cache_dtype: Literal["float16", "bfloat16", "float32"] = "float16",
        loss: Literal["bce", "asymmetric", "bce+asymmetric"] = "bce",
        reduction: Literal["mean", "sum"] = "mean",
        uncertain: UncertainPolicy | dict[str, UncertainPolicy] = "ignore",
        published_mask: bool = False,
        select: Literal["auroc", "auprc"] = "auroc",
        views: Views | None = None,
        recipe: Recipe = PROBE_RECIPE,
        drop_path: float = 0.0,
        patch_size: int | None = None,
        drop_gates: bool = False,
        max_nonfinite: int = 2,
    ) -> None:
        _check_findings(findings, uncertain)
        super().__init__(
            encoder,
            Targets(findings=tuple(findings)),
            frozen=frozen,
            views=views,
            recipe=recipe,
            drop_path=drop_path,
            patch_size=patch_size,
            drop_gates=drop_gates,
            max_nonfinite=max_nonfinite,
        )
        self.findings = list(findings)
        made = make_candidates(candidates or {None: head}, learning_rates)
        self.heads = Candidates(made, self.backbone.level_dims, len(findings))
        if not frozen and (len(made) > 1 or cache is not None):
            raise InputError(
                "candidates, learning_rates and cache need a frozen encoder, whose features they "
                "share: set frozen to true, or leave them out"
            )
        self.cache = cache
        self.cache_dtype = cache_dtype
        self.loss = loss
        self.reduction = reduction
        self.uncertain = uncertain
        self.published_mask = published_mask
        self.select = select
        depth = len(self.backbone.level_dims)
        self.level_numbers = list(range(depth - self.heads.blocks, depth))
        self.register_buffer("alive", torch.ones(len(made), dtype=torch.bool))
        self.register_buffer("chosen", torch.tensor(0))
        self.predictions: dict[str, NDArray[Any]] = {}
        self._outputs = Outputs()

    @property
    def chosen_head(self) -> ClassificationHead:
        """The head that did best on validation."""
        return self.heads.head(int(self.chosen))

    @property
    def chosen_name(self) -> str:
        """Name of the head that did best on validation."""
        return self.heads.names[int(self.chosen)]

    def levels(self, batch: dict[str, Any]) -> list[Tokens]:
        """Return the tokens that the heads read, of images or of cached features."""
        if "levels" in batch:
            return unpack_levels(batch["levels"], self.backbone.has_class_token)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.backbone.levels(batch["image"], self.level_numbers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, F) of the chosen head for images (B, C, H, W)."""
        return self.heads.logits(int(self.chosen), self.levels({"image": images}))

    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the loss of each candidate."""
        levels = self.levels(batch)
        labels = resolve_labels(batch["labels"], self.uncertain, findings=self.findings)
        losses = [
            self._loss(self.heads.logits(number, levels), labels, number)
            for number in range(len(self.heads))
        ]
        self._drop_broken(torch.stack([loss.detach() for loss in losses]))
        return {
            _term(self.heads.names, number): (1.0, loss if self.alive[number] else _idle(head))
            for number, (loss, head) in enumerate(zip(losses, self.heads, strict=True))
        }

    def rate_factor(self, name: str) -> float:
        """Return a candidate's learning rate over the recipe's."""
        parts = name.split(".")
        rate = self.heads.rates[int(parts[1])] if parts[0] == "heads" else None
        return 1.0 if rate is None else rate / self.recipe.lr.value

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the encoder and of each candidate."""
        groups = {"backbone": list(self.backbone.parameters())}
        groups |= {
            name: list(head.parameters())
            for name, head in zip(self.heads.names, self.heads, strict=True)
        }
        return {
            name: trained
            for name, parameters in groups.items()
            if (trained := [p for p in parameters if p.requires_grad])
        }

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Encode all labelled images once where there is a cache."""
        super().setup(stage)
        if self.cache is not None and stage != "predict":
            self._encode_once()

    def on_fit_start(self) -> None:
        """Refuse a choice that nothing can be based on."""
        if len(self.heads) > 1 and not self.trainer.enable_validation:
            raise InputError(
                f"{len(self.heads)} candidates are chosen among by validation images: give the "
                "index a validation split, or a single head and learning rate"
            )
        if self.backbone.load_report is not None:
            rank_zero_info(f"Encoder from {self.backbone.load_report}")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Gather the logits of all candidates."""
        levels = self.levels(batch)
        logits = [self.heads.logits(number, levels) for number in range(len(self.heads))]
        labels = resolve_labels(batch["labels"], self.uncertain, findings=self.findings)
        loss = self._loss(logits[int(self.chosen)], labels, 0) / _size(labels, self.reduction)
        self.log("val/loss", loss, sync_dist=True, batch_size=len(labels))
        self._outputs.add(batch, logits=torch.stack(logits, dim=1), labels=batch["labels"])

    def on_validation_epoch_end(self) -> None:
        """Score all candidates and choose the best."""
        rows = self._outputs.take()
        scores = [
            multilabel_scores(_finite(rows["logits"][:, number]), rows["labels"], self.findings)
            for number in range(len(self.heads))
        ]
        macro = [each[self.select].get("macro", float("nan")) for each in scores]
        usable = [
            value if alive else float("nan")
            for value, alive in zip(macro, self.alive.tolist(), strict=True)
        ]
        if np.isfinite(usable).any():
            self.chosen.fill_(int(np.nanargmax(usable)))
        elif not self.trainer.sanity_checking:
            rank_zero_warn(
                "No finding has both positive and negative validation images, so nothing can be "
                f"scored there: {', '.join(scores[0]['undefined'])}"
            )
        if len(self.heads) > 1:
            names = (f"candidates/{self.select}/{name}" for name in self.heads.names)
            self.log_dict(dict(zip(names, macro, strict=True)))
        best = scores[int(self.chosen)]
        for measure, areas in (("auroc", best["auroc"]), ("auprc", best["auprc"])):
            values = {f"val/{measure}/{_key(name)}": area for name, area in areas.items()}
            self.log_dict(values, prog_bar=False)

    def on_fit_end(self) -> None:
        """Say which candidate is the best."""
        if len(self.heads) > 1:
            rank_zero_info(f"Best of {len(self.heads)} candidates: {self.chosen_name}.")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Gather the logits of the chosen candidate."""
        logits = self.heads.logits(int(self.chosen), self.levels(batch))
        self._outputs.add(batch, logits=logits, labels=batch["labels"])

    def on_test_epoch_end(self) -> None:
        """Score the chosen candidate; ``predictions`` keeps what was predicted."""
        rows = self._outputs.take()
        scores = multilabel_scores(rows["logits"], rows["labels"], self.findings)
        for measure, areas in (("auroc", scores["auroc"]), ("auprc", scores["auprc"])):
            self.log_dict({f"test/{measure}/{_key(name)}": area for name, area in areas.items()})
        self.predictions = {
            "image_number": rows["image_number"],
            "labels": rows["labels"],
            "probabilities": 1 / (1 + np.exp(-rows["logits"].astype(np.float64))),
        }

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Return ``probabilities`` (B, F) and the numbers of their images; NaN for corrupt ones."""
        probabilities = unread(batch, self(batch["image"]).sigmoid())
        return {"image_number": batch["image_number"], "probabilities": probabilities}

    def name_predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the probability of each finding."""
        columns = batch["probabilities"].cpu().numpy().T
        return {
            "image_number": batch["image_number"].cpu().numpy(),
            **dict(zip(self.findings, columns, strict=True)),
        }

    def results(self, images: TestImages) -> Results:
        """Return scores with intervals, predictions, and maps of a GLoRI head."""
        results = classification_results(self.predictions, self.findings, images.shown_rows("test"))
        head = self.chosen_head
        if isinstance(head, GLoRI):
            places, views = examples(self.predictions, images)
            levels = self.backbone.levels(views.to(self.device), self.level_numbers)
            grey = (views[:, 0] * self.views.std + self.views.mean).clamp(0, 1)
            results.figures["attention"] = attention_figure(
                head,
                levels[len(levels) - head.blocks :],
                grey.numpy(),
                self.findings,
                self.predictions["labels"][places],
                self.predictions["probabilities"][places],
            )
        return results

    # Parts of the above.

    def _loss(self, logits: Tensor, labels: Tensor, number: int) -> Tensor:
        if self.published_mask:
            labels = labels_as_published(labels, number)
        terms = []
        if self.loss != "asymmetric":
            terms.append(multilabel_bce(logits, labels, reduction=self.reduction))
        if self.loss != "bce":
            terms.append(asymmetric_loss(logits, labels, reduction=self.reduction))
        return torch.stack(terms).sum()

    def _drop_broken(self, losses: Tensor) -> None:
        """Take candidates out of the training whose loss is not finite on some process."""
        if len(self.heads) == 1:
            return  # the run's own rule for steps that are not finite
        broken = all_sum((~torch.isfinite(losses)).float()) > 0
        for number in torch.nonzero(broken & self.alive).flatten().tolist():
            rank_zero_warn(
                f"The loss of candidate {self.heads.names[number]} is not finite any more: it is "
                "dropped, the others go on."
            )
            self.alive[number] = False
            with torch.no_grad():
                for parameter in self.heads[number].parameters():
                    parameter.zero_()

    def _encode_once(self) -> None:
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "cache_features"):
            raise InputError("cache needs a data module of cxrssl, whose images it encodes")
        patches = self.heads.needs_patches
        shapes = packed_shapes(self.backbone, self.level_numbers, patches, self.views.image_size)
        device = self.trainer.strategy.root_device
        precision = self.trainer.precision_plugin
        self.backbone.to(device)

        def encode(images: Tensor) -> list[Tensor]:
            with precision.forward_context():
                levels = self.backbone.levels(precision.convert_input(images), self.level_numbers)
            return pack_levels(levels, patches)

        datamodule.cache_features(
            encode,
            shapes,
            {
                "encoder": fingerprint(self.backbone),
                "levels": self.level_numbers,
                "patches": patches,
                "precision": str(self.trainer.precision),
            },
            device=device,
            folder=self.cache,
            dtype=self.cache_dtype,
        )


def _check_findings(
    findings: Sequence[str], uncertain: UncertainPolicy | Mapping[str, UncertainPolicy]
) -> None:
    if not findings or len(set(findings)) < len(findings):
        raise InputError(f"findings must be at least one name, each once, got {list(findings)}")
    if isinstance(uncertain, Mapping) and (unknown := sorted(set(uncertain) - set(findings))):
        raise InputError(
            f"uncertain names {', '.join(unknown)}; the findings are {', '.join(findings)}"
        )


def _term(names: Sequence[str], number: int) -> str:
    return "classification" if len(names) == 1 else names[number]


def _idle(head: nn.Module) -> Tensor:
    """Return 0 with zero gradients, as distributed training needs it."""
    return torch.stack([(p * 0).sum() for p in head.parameters() if p.requires_grad]).sum()


def _size(labels: Tensor, reduction: str) -> int:
    return len(labels) if reduction == "sum" else 1


def _finite(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return scores that can be ranked; a broken head ranks nothing."""
    ranked: NDArray[np.floating] = np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
    return ranked


def _key(finding: str) -> str:
    return finding.replace(" ", "_")

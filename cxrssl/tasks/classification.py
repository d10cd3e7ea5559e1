"""Findings of an image from the tokens of an encoder, frozen or fine-tuned."""

from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrssl.analysis import MultilabelScores, multilabel_scores
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
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.tasks.base import Task, unread
from cxrssl.tasks.caching import unpack_levels
from cxrssl.tasks.candidates import Candidates, NewHead, make_candidates
from cxrssl.tasks.classification_results import (
    attention_figure,
    classification_results,
    examples,
)
from cxrssl.tasks.encode_features import encode_features
from cxrssl.tasks.options import check_choice, check_names, check_uncertain
from cxrssl.tasks.outputs import Outputs, metric_key
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
    and chosen among by their macro score on the validation images; test images have no say. Each
    learns what it would learn alone. One whose loss or gradient is not finite any more is dropped
    with a warning, and the others go on.

    Logged are ``val/loss``, over all known labels of the validation images, and
    ``{val,test}/{auroc,auprc}/{macro,<finding>}`` of the best candidate; ``macro`` is NaN where no
    finding can be scored. Several candidates have ``candidates/<score>/<name>`` too.

    Args:
        encoder: See :class:`Task`.
        findings: Label columns of the index, in the order of the logits.
        head: :class:`LinearProbe`, :class:`AttentiveProbe` or :class:`GLoRI`.
        candidates: Several heads by name, in the place of ``head``.
        learning_rates: Learning rates each head is tried with, in the place of the top of the
            recipe's schedule.
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
        check_names("findings", findings)
        check_uncertain(uncertain, findings)
        check_choice("loss", loss, ("bce", "asymmetric", "bce+asymmetric"))
        check_choice("reduction", reduction, ("mean", "sum"))
        check_choice("select", select, ("auroc", "auprc"))
        check_choice("cache_dtype", cache_dtype, ("float16", "bfloat16", "float32"))
        made = make_candidates({None: head} if candidates is None else candidates, learning_rates)
        if not frozen and (len(made) > 1 or cache is not None):
            raise InputError(
                "candidates, learning_rates and cache need a frozen encoder, whose features they "
                "share: set frozen to true, or leave them out"
            )
        if learning_rates is not None and recipe.lr.value <= 0:
            raise InputError(
                "learning_rates take the place of recipe.lr.value, which must be positive, got "
                f"{recipe.lr.value}"
            )
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
        self.heads = Candidates(made, self.backbone.level_dims, len(findings))
        self.cache = cache
        self.cache_dtype = cache_dtype
        self.loss = loss
        self.reduction = reduction
        self.uncertain = uncertain
        self.published_mask = published_mask
        self.select = select
        depth = len(self.backbone.level_dims)
        self.level_numbers = list(range(depth - self.heads.blocks, depth))
        self.predictions: dict[str, NDArray[Any]] = {}
        self._outputs = Outputs()

    @property
    def chosen_head(self) -> ClassificationHead:
        """The head that did best on validation.

        Raises:
            InputError: If none of several has been chosen.
        """
        return self.heads.head(self.heads.best)

    @property
    def chosen_name(self) -> str:
        """Name of the head that did best on validation; raises as :attr:`chosen_head`."""
        return self.heads.names[self.heads.best]

    def levels(self, batch: dict[str, Any]) -> list[Tokens]:
        """Return the tokens that the heads read, of images or of cached features."""
        if "levels" in batch:
            return unpack_levels(batch["levels"], self.backbone.has_class_token)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.backbone.levels(batch["image"], self.level_numbers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, F) of the chosen head for images (B, C, H, W)."""
        return self.heads.logits(self.heads.best, self.levels({"image": images}))

    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the loss of each candidate, by its name; 0 for those that are dropped."""
        labels = resolve_labels(batch["labels"], self.uncertain, findings=self.findings)

        def loss(logits: Tensor, number: int) -> Tensor:
            return self._loss(logits, labels, number)

        names = ["classification"] if len(self.heads) == 1 else self.heads.names
        losses = self.heads.losses(self.levels(batch), loss)
        return {name: (1.0, each) for name, each in zip(names, losses, strict=True)}

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

    # Lightning's hooks, in the order of a run.

    def setup(self, stage: str) -> None:
        """Encode all labelled images once where there is a cache."""
        super().setup(stage)
        if self.cache is not None and stage != "predict":
            encode_features(
                self.trainer,
                self.backbone,
                self.level_numbers,
                patches=self.heads.needs_patches,
                image_size=self.views.image_size,
                encoder=self._fingerprint(),
                folder=self.cache,
                dtype=self.cache_dtype,
            )

    def on_fit_start(self) -> None:
        """Refuse a choice that nothing can be based on."""
        super().on_fit_start()
        if len(self.heads) > 1 and not self._validates():
            raise InputError(
                f"{len(self.heads)} candidates are chosen among by validation images: give the "
                "index a validation split, or a single head and learning rate"
            )

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Drop candidates whose gradient is not finite, and clip each of the others by itself."""
        if not self._scaler_searches():
            self.heads.drop_broken_gradients()
        self.heads.forget_gradients()
        super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Gather the logits of all candidates."""
        levels = self.levels(batch)
        logits = [self.heads.logits(number, levels) for number in range(len(self.heads))]
        self._outputs.add(batch, logits=torch.stack(logits, dim=1), labels=batch["labels"])

    def on_validation_epoch_end(self) -> None:
        """Score all candidates and, while fitting, choose the best."""
        rows = self._outputs.take()
        if self.trainer.sanity_checking:
            return
        logits, labels = rows["logits"].swapaxes(0, 1), rows["labels"]
        scores = [self._scores(each, labels) for each in logits]
        macro = [each[self.select].get("macro", float("nan")) for each in scores]
        if self.trainer.state.fn == TrainerFn.FITTING or int(self.heads.chosen) < 0:
            scored = self.heads.choose(macro)
        else:
            scored = bool(np.isfinite(macro).any())
        if not scored:
            rank_zero_warn(
                "Nothing can be scored on the validation images: no finding has both positive and "
                f"negative ones, or no score is finite ({', '.join(self.findings)})"
            )
        if len(self.heads) > 1:
            names = (f"candidates/{self.select}/{name}" for name in self.heads.names)
            self.log_dict(dict(zip(names, macro, strict=True)), sync_dist=True)
        number = max(int(self.heads.chosen), 0)
        self._log_scores("val", scores[number])
        self.log("val/loss", self._held_out_loss(logits[number], labels), sync_dist=True)

    def on_fit_end(self) -> None:
        """Say which candidate is the best."""
        if len(self.heads) > 1 and int(self.heads.chosen) >= 0:
            rank_zero_info(f"Best of {len(self.heads)} candidates: {self.chosen_name}.")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Gather the logits of the chosen candidate."""
        logits = self.heads.logits(self.heads.best, self.levels(batch))
        self._outputs.add(batch, logits=logits, labels=batch["labels"])

    def on_test_epoch_end(self) -> None:
        """Score the chosen candidate; ``predictions`` keeps what was predicted."""
        rows = self._outputs.take()
        self._log_scores("test", self._scores(rows["logits"], rows["labels"]))
        self.predictions = {
            "image_number": rows["image_number"],
            "labels": rows["labels"],
            "probabilities": _sigmoid(rows["logits"]),
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
        if isinstance(self.chosen_head, GLoRI):
            results.figures["attention"] = self._figure(images)
        return results

    @torch.no_grad()
    def attention(self, images: Tensor) -> NDArray[np.float32]:
        """Return where a chosen GLoRI head looks for each finding, (B, heads, F, h, w).

        Args:
            images: Deterministic views (B, C, H, W).

        Raises:
            InputError: If the chosen head is another one.
        """
        head = self.chosen_head
        if not isinstance(head, GLoRI):
            raise InputError(
                f"the chosen head is a {type(head).__name__}, which has no attention maps of its "
                "findings: GLoRI has"
            )
        training = self.training
        self.eval()
        try:
            levels = self.backbone.levels(images.to(next(self.parameters())), self.level_numbers)
            maps = head.attention(self.heads.read(self.heads.best, levels))
        finally:
            self.train(training)
        shown: NDArray[np.float32] = maps.unflatten(-1, levels[-1].grid).float().cpu().numpy()
        return shown

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

    def _figure(self, images: TestImages) -> Figure:
        """Return where the chosen head looks in some test images."""
        places, views = examples(self.predictions, images)
        return attention_figure(
            self.views.grey(views).numpy(),
            self.attention(views),
            self.findings,
            labels=self.predictions["labels"][places],
            probabilities=self.predictions["probabilities"][places],
        )

    def _scores(
        self, logits: NDArray[np.floating], labels: NDArray[np.floating]
    ) -> MultilabelScores:
        """Return the scores of logits (n, F), none where they are not all finite."""
        if not np.isfinite(logits).all():
            return MultilabelScores(auroc={}, auprc={}, undefined=self.findings)
        return multilabel_scores(logits, labels, self.findings)

    def _log_scores(self, split: str, scores: MultilabelScores) -> None:
        nothing = {"macro": float("nan")}  # so that what monitors it finds it
        for measure, areas in (("auroc", scores["auroc"]), ("auprc", scores["auprc"])):
            named = {metric_key(name): area for name, area in (areas or nothing).items()}
            values = {f"{split}/{measure}/{name}": area for name, area in named.items()}
            self.log_dict(values, sync_dist=True)

    def _held_out_loss(self, logits: NDArray[np.floating], labels: NDArray[np.floating]) -> Tensor:
        """Return the loss over all images, with ``sum`` an image."""
        known = torch.from_numpy(labels).to(self.device)
        known = resolve_labels(known, self.uncertain, findings=self.findings)
        loss = self._loss(torch.from_numpy(logits).to(self.device), known, 0)
        return loss / len(labels) if self.reduction == "sum" else loss

    def _validates(self) -> bool:
        rows = getattr(getattr(self.trainer, "datamodule", None), "rows", None)
        return self.trainer.enable_validation and (rows is None or len(rows("val")) > 0)


def _sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    return torch.from_numpy(logits).double().sigmoid().numpy()

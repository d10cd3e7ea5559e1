"""The findings section of a report, written by a language model that sees the patch tokens."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cxrssl.analysis.reports import report_scores
from cxrssl.backbones import Backbone
from cxrssl.errors import InputError
from cxrssl.heads.language import VisionProjector
from cxrssl.losses.distributed import all_sum, world_size
from cxrssl.objectives.recipe import Recipe
from cxrssl.schedules import Schedule
from cxrssl.tasks.base import Task, default_views
from cxrssl.tasks.encoder import prepare_encoder
from cxrssl.tasks.language_model import (
    Tokenizer,
    decode_greedily,
    language_fingerprint,
    load_language_model,
)
from cxrssl.tasks.report_results import report_results
from cxrssl.tasks.report_tokens import MASKED, ReportTokens
from cxrssl.tasks.results import Results, TestImages
from cxrssl.tasks.texts import Texts
from cxrssl.views import Views
from cxrssl.views.targets import Targets

__all__ = ["ReportGeneration"]

_LANGUAGE_MODEL = "language_model."

LLAVA_RECIPE = Recipe(
    lr=Schedule(2e-5, final=0.0, warmup=0.03),
    lr_scaling="none",
    weight_decay=Schedule(0.0),
    layer_decay=1.0,
    patch_embed_lr=1.0,
    clip=1.0,
    freeze_last_layer=0.0,
)
"""AdamW without decay and a cosine to 0, as LLaVA-1.5 is tuned; it clips all gradients together."""


class ReportGeneration(Task):
    """Report generation from the frozen encoder's patches, as RAD-DINO evaluates it (section 4.2).

    As in LLaVA-1.5 (arXiv 2310.03744), the patch tokens after the final norm, row by row and
    without class token, become embeddings of a causal language model by a :class:`VisionProjector`.
    The model reads them, then the prompt, and writes the report::

        [bos] <image> Provide a description of the findings in the radiology image. report [eos]

    The loss is the mean cross-entropy, in float32, of the tokens of the reports and their ``eos``,
    over those of a micro-batch on all processes; image and prompt are read only.

    A report is decoded greedily. Image and prompt are equally long for all images, so that nothing
    is padded and a report depends on its batch by rounding only. RAD-DINO decodes with
    ``precision: 32-true`` and a batch of 1.

    Strategies that shard a model are not supported: one that is trained takes 16 bytes per weight
    on every GPU.

    Args:
        encoder: See :class:`Task`; it stays as it is.
        language_model: Folder, or name on the Hugging Face Hub, of a causal language model with
            safetensors weights; RAD-DINO's is Vicuna-7B 1.5. In Python also a model of
            transformers, given with its ``tokenizer``.
        tokenizer: Folder or name of another tokeniser than the one beside the model.
        prompt: What the model reads before it writes. ``<image>`` in it says where the patches are;
            without, they come first. LLaVA-1.5's own form is ``A chat between ... USER: <image>
            Provide ... ASSISTANT:``.
        max_new_tokens: Longest report that is generated, in tokens.
        max_text_tokens: Longest report that is learnt from, in tokens; of a longer one the
            beginning is, without its end.
        train_language_model: Whether the language model is trained too, and so kept in the
            checkpoints; otherwise only the projector is, and checkpoints name the model by a hash.
        views: See :class:`Task`; by default the deterministic view, since reports tell left from
            right and speak of what a crop may lose.
        recipe: See :class:`Task`; LLaVA-1.5's by default.
        drop_gates: See :class:`Task`.
        max_nonfinite: See :class:`Task`.

    Raises:
        InputError: If transformers is not installed, the language model cannot be read, an option
            is out of range; or, on the way, image, prompt and report are too long for the model.
    """

    train_language_model = True  # until it is known, since Task sets the mode

    def __init__(
        self,
        encoder: Backbone | str,
        language_model: str | nn.Module,
        *,
        tokenizer: str | Tokenizer | None = None,
        prompt: str = "Provide a description of the findings in the radiology image.",
        max_new_tokens: int = 150,
        max_text_tokens: int = 512,
        train_language_model: bool = True,
        views: Views | None = None,
        recipe: Recipe = LLAVA_RECIPE,
        drop_gates: bool = False,
        max_nonfinite: int = 2,
    ) -> None:
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be positive, got {max_new_tokens}")
        backbone = prepare_encoder(encoder, drop_gates=drop_gates)
        super().__init__(
            backbone,
            Targets(text=True),
            frozen=True,
            views=default_views(backbone).eval_view() if views is None else views,
            recipe=recipe,
            drop_path=0.0,
            patch_size=None,
            drop_gates=drop_gates,
            max_nonfinite=max_nonfinite,
        )
        language: Any
        language, words = load_language_model(language_model, tokenizer)
        decode_greedily(language, words, max_new_tokens)
        self.language_model = language.requires_grad_(train_language_model)
        self.train_language_model = train_language_model
        self.tokens = ReportTokens(words, prompt, max_text_tokens)
        self.max_new_tokens = max_new_tokens
        width = language.get_input_embeddings().weight.shape[1]
        self.projector = VisionProjector(backbone.embed_dim, width)
        self.predictions: dict[str, NDArray[Any]] = {}
        self._texts = Texts()
        self.train(self.training)

    def train(self, mode: bool = True) -> "ReportGeneration":
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if not self.train_language_model:
            self.language_model.eval()
        return self

    def forward(self, images: Tensor) -> list[str]:
        """Return the reports of images (B, C, H, W)."""
        context = self._context(images)
        self._check_length(context.shape[1] + self.max_new_tokens)
        mask = torch.ones(context.shape[:2], dtype=torch.long, device=context.device)
        written = self.language_model.generate(inputs_embeds=context, attention_mask=mask)
        return [self.tokens.text(tokens) for tokens in written.tolist()]

    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the mean cross-entropy of a token, over the tokens of all processes."""
        total, count = self._cross_entropy(batch["image"], batch["text"])
        per_process = all_sum(count) / world_size()
        return {"report": (1.0, total / per_process)}

    # Lightning's hooks.

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave a frozen language model out too."""
        super().on_save_checkpoint(checkpoint)
        if self.train_language_model:
            return
        checkpoint["cxrssl_language_model"] = language_fingerprint(self.language_model)
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith(_LANGUAGE_MODEL)]:
            del state[name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put what is frozen in its place.

        Raises:
            InputError: If the checkpoint stands on another encoder or language model.
        """
        known = checkpoint.get("cxrssl_language_model")
        if known is not None and known != language_fingerprint(self.language_model):
            raise InputError(
                "the checkpoint was trained beside a frozen language model that is another one "
                "than this: give the language model it was trained with"
            )
        if known is not None:
            for name, value in self.language_model.state_dict().items():
                checkpoint["state_dict"][_LANGUAGE_MODEL + name] = value
        super().on_load_checkpoint(checkpoint)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the mean cross-entropy of a token."""
        images, texts = _readable(batch)
        total, count = self._cross_entropy(images, texts)
        loss, size = total / count.clamp(min=1), int(count)
        self.log("val/loss", loss, sync_dist=True, batch_size=size)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Generate the reports."""
        images, texts = _readable(batch)
        numbers = batch["image_number"][batch["readable"]].tolist()
        self._texts.add(numbers, reference=texts, generated=self(images) if texts else [])

    def on_test_epoch_end(self) -> None:
        """Score the reports; ``predictions`` keeps them, beside what was to be written."""
        self.predictions = self._texts.take()
        if not self.trainer.is_global_zero or not len(self.predictions.get("image_number", ())):
            return
        texts = (self.predictions[name].tolist() for name in ("generated", "reference"))
        scores = {f"test/{name}": score.mean() for name, score in report_scores(*texts).items()}
        self.log_dict(scores, rank_zero_only=True)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Return ``report``, B texts, with the numbers of their images; None for corrupt ones."""
        readable = batch["readable"]
        written = iter(self(batch["image"][readable]) if readable.any() else [])
        reports = [next(written) if known else None for known in readable.tolist()]
        return {"image_number": batch["image_number"], "report": reports}

    def name_predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the report of each image."""
        return {"image_number": batch["image_number"].cpu().numpy(), "report": batch["report"]}

    def results(self, images: TestImages) -> Results:
        """Return the reports of each image, and their scores with intervals."""
        return report_results(self.predictions, images.shown_rows("test"))

    # Parts of the above.

    def _embed(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.language_model.get_input_embeddings()(tokens)
        return embeddings

    def _context(self, images: Tensor) -> Tensor:
        """Return embeddings (B, P, D) of what stands before a report: image and prompt."""
        with torch.no_grad():
            patches = self.backbone(images).patches
        seen = self.projector(patches)
        before, after = (
            self._embed(torch.tensor([part], dtype=torch.long, device=seen.device))
            for part in (self.tokens.before, self.tokens.after)
        )
        parts = [part.expand(len(seen), -1, -1) for part in (before, seen.to(before.dtype), after)]
        return torch.cat(parts, dim=1)

    def _cross_entropy(self, images: Tensor, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the sum of the cross-entropy of the reports' tokens, and their number."""
        if not texts:
            nothing = torch.zeros((), device=images.device)
            return nothing, nothing
        context, targets = self._context(images), self.tokens.targets(texts).to(images.device)
        length = targets.shape[1]
        self._check_length(context.shape[1] + length)
        # Of the last token nothing follows, so that it is not read.
        inputs = torch.cat([context, self._embed(targets[:, :-1].clamp(min=0))], dim=1)
        mask = F.pad(targets[:, :-1] != MASKED, (context.shape[1], 0), value=True)
        output = self.language_model(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            use_cache=False,
            logits_to_keep=length,  # those of image and prompt would take most of the memory
        )
        logits = output.logits[:, -length:].float().flatten(0, 1)
        total = F.cross_entropy(logits, targets.flatten(), ignore_index=MASKED, reduction="sum")
        return total, (targets != MASKED).sum()

    def _check_length(self, length: int) -> None:
        limit = getattr(self.language_model.config, "max_position_embeddings", None)
        if limit is not None and length > limit:
            raise InputError(
                f"image, prompt and report have up to {length} tokens, the language model reads "
                f"{limit}: take smaller views, max_text_tokens or max_new_tokens, or another model"
            )


def _readable(batch: dict[str, Any]) -> tuple[Tensor, list[str]]:
    """Return the images that could be read, and their reports."""
    readable = batch["readable"]
    pairs = zip(batch["text"], readable.tolist(), strict=True)
    return batch["image"][readable], [text for text, known in pairs if known]

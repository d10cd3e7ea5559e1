"""What every downstream task shares: an encoder, frozen or fine-tuned, and labelled views."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

import cxrssl
from cxrssl.backbones import Backbone, Pooling
from cxrssl.errors import InputError
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.recipe_module import RecipeModule
from cxrssl.objectives.run_checks import warn_of_local_norms
from cxrssl.tasks.encoder import fingerprint, prepare_encoder, view_options
from cxrssl.tasks.results import Results, TestImages
from cxrssl.views import SupervisedView, Views
from cxrssl.views.targets import Targets

__all__ = ["Task"]

_BACKBONE = "backbone."


class Task(RecipeModule):
    """A labelled task on an encoder.

    A frozen encoder stays in evaluation mode and out of the checkpoints, which name it by a hash:
    they load beside the same encoder only. How a task is trained, see
    :class:`cxrssl.objectives.recipe_module.RecipeModule`.

    Args:
        encoder: A backbone, or one of our checkpoints or ``encoder.safetensors``. Weights of timm,
            Hugging Face or official code go into a backbone with ``weights``.
        targets: What of an image is to be predicted.
        frozen: Whether only what stands on the encoder is trained.
        views: What one image becomes; by default :class:`SupervisedView` at the encoder's size,
            normalised as its file says. The deterministic view of it is used outside training.
        recipe: How it is optimised.
        drop_path: Rate of stochastic depth while fine-tuning, see :func:`prepare_encoder`.
        patch_size: Another side of the encoder's patches, see :func:`prepare_encoder`.
        drop_gates: Whether in-line gates of the encoder are taken out.
        max_nonfinite: Steps in a row whose loss or gradient is not finite that are skipped before
            the run stops.

    Raises:
        InputError: If the encoder and the views do not fit.
        NonFiniteLossError: In training, see ``max_nonfinite``.
    """

    def __init__(
        self,
        encoder: Backbone | str,
        targets: Targets,
        *,
        frozen: bool,
        views: Views | None,
        recipe: Recipe,
        drop_path: float,
        patch_size: int | None,
        drop_gates: bool,
        max_nonfinite: int,
    ) -> None:
        backbone = prepare_encoder(
            encoder, drop_path=drop_path, patch_size=patch_size, drop_gates=drop_gates
        )
        super().__init__(backbone, recipe, max_nonfinite)
        self.frozen = frozen
        backbone.requires_grad_(not frozen)
        _freeze_tables(backbone)
        self.views = default_views(backbone) if views is None else views
        if self.views.in_chans != backbone.in_chans:
            raise InputError(
                f"the views make images of {self.views.in_chans} channel(s) but the encoder takes "
                f"{backbone.in_chans}: set views.in_chans to {backbone.in_chans}"
            )
        patch = getattr(backbone, "patch_size", 1)
        if self.views.image_size % patch:
            raise InputError(
                f"the views make images of {self.views.image_size} pixels, which the encoder's "
                f"patches of {patch} pixels do not tile: set views.image_size to a multiple"
            )
        self.views.targets = targets
        self._encoder_hash: str | None = None
        self.train(self.training)

    @property
    def encoder(self) -> Backbone:
        """The encoder."""
        return self.backbone

    @torch.no_grad()
    def embed(self, images: Tensor, pooling: Pooling = "class") -> Tensor:
        """Return one vector of the encoder for each image (B, C, H, W); see :meth:`Tokens.pool`."""
        training = self.backbone.training
        self.backbone.eval()
        try:
            tokens = self.backbone(images)
            vectors: Tensor = tokens.pool(self.backbone.pooling(pooling)).float()
            return vectors
        finally:
            self.backbone.train(training)

    def train(self, mode: bool = True) -> "Task":
        """Set the mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def describe(self) -> dict[str, Any]:
        """Return what a file with the encoder must say about itself, as plain data."""
        return {
            "version": cxrssl.__version__,
            "objective": type(self).__name__,
            "encoder": _BACKBONE.removesuffix("."),
            "backbone": {
                "class": type(self.backbone).__name__,
                "arguments": self.backbone.arguments,
            },
            "normalisation": {"mean": self.views.mean, "std": self.views.std},
            "image_size": self.views.image_size,
            "pooling": self.backbone.trained_pooling,
        }

    # Lightning's hooks, in the order of a run.

    def setup(self, stage: str) -> None:
        """Refuse a data module that does not show what is to be predicted."""
        super().setup(stage)
        self._encoder_hash = None
        shown = getattr(getattr(self.trainer, "datamodule", None), "views", self.views)
        if getattr(shown, "targets", None) != self.views.targets:
            raise InputError(
                f"the data module has views without the targets of {type(self).__name__}: give it "
                "the task's own, views=task.views"
            )

    def on_fit_start(self) -> None:
        """Say where the encoder comes from."""
        super().on_fit_start()
        if self.backbone.load_report is not None:
            rank_zero_info(f"Encoder from {self.backbone.load_report}")
        warn_of_local_norms(self, self.trainer.world_size)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave a frozen encoder out; let the checkpoint of a trained one describe itself."""
        super().on_save_checkpoint(checkpoint)
        if not self.frozen:
            checkpoint["cxrssl"] = self.describe()
            return
        checkpoint["cxrssl_encoder"] = self._fingerprint()
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith(_BACKBONE)]:
            del state[name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the frozen encoder in its place.

        Raises:
            InputError: If the checkpoint stands on another encoder.
        """
        known = checkpoint.get("cxrssl_encoder")
        if known is not None and known != self._fingerprint():
            raise InputError(
                "the checkpoint was trained on a frozen encoder that is another one than this: "
                "give the encoder it was trained with"
            )
        if known is not None:
            for name, value in self.backbone.state_dict().items():
                checkpoint["state_dict"][_BACKBONE + name] = value
        super().on_load_checkpoint(checkpoint)

    def _fingerprint(self) -> str:
        """Return the hash of a frozen encoder, which takes seconds, once a run."""
        if self._encoder_hash is None:
            self._encoder_hash = fingerprint(self.backbone)
        return self._encoder_hash

    # What callbacks ask for.

    @abstractmethod
    def name_predictions(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a table of what ``predict_step`` returned.

        ``image_number`` is one of them; all have as many entries as the batch has images.
        """

    @abstractmethod
    def results(self, images: TestImages) -> Results:
        """Return tables and figures of the last test.

        Args:
            images: The images it has shown, as the data module has them.
        """


def default_views(backbone: Backbone) -> SupervisedView:
    """Return random views at an encoder's size, normalised as its file says."""
    return SupervisedView(**view_options(backbone))


def unread(batch: dict[str, Any], values: Tensor) -> Tensor:
    """Return predictions (B, ...) with NaN for images that could not be read."""
    values = values.float()
    values[~batch["readable"]] = torch.nan
    return values


def _freeze_tables(backbone: Backbone) -> None:
    """Keep a fixed table of positions fixed when an encoder is fine-tuned."""
    if backbone.arguments.get("position") == "sincos":
        for name, parameter in backbone.named_parameters():
            if name.endswith("pos_embed"):
                parameter.requires_grad_(False)

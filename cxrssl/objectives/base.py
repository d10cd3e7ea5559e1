"""What every objective shares: views, named terms with weights, a teacher, and a description."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

import cxrssl
from cxrssl.backbones import Backbone, Pooling, Tokens
from cxrssl.errors import InputError
from cxrssl.losses import draw_directions, sigreg
from cxrssl.losses.distributed import world_size
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.recipe_module import RecipeModule
from cxrssl.objectives.run_checks import check_batch, warn_of_local_norms
from cxrssl.objectives.sharding import FullySharded, plain_class
from cxrssl.objectives.stage import load_stage, read_stage
from cxrssl.views import Views

__all__ = ["Objective"]


class Objective(RecipeModule):
    """A self-supervised objective on a backbone.

    A subclass builds its heads and returns named loss terms; this class gives them their weights,
    moves the teacher, takes over earlier stages, and makes checkpoints describe themselves. How it
    is trained, see :class:`cxrssl.objectives.recipe_module.RecipeModule`.

    Args:
        backbone: The student or context encoder.
        views: What one image becomes; a default that suits the backbone if left out.
        weights: Weight of each loss term; the method's own where absent. A term of weight 0 is not
            computed. Every objective has the term ``sigreg`` (weight 0), LeJEPA's regulariser of
            the vectors that stand for its views; see :func:`cxrssl.losses.sigreg`.
        recipe: How it is optimised.
        init_from: Checkpoint of an earlier stage of the same objective. Everything is taken over,
            teacher and heads included, and positions are resampled to the new grid.
        max_nonfinite: Steps in a row whose loss or gradient is not finite that are skipped before
            the run stops.

    Raises:
        NonFiniteLossError: In training, see ``max_nonfinite``.
    """

    sharded_methods = ("training_step", "validation_step", "tokens", "embed")
    default_weights: ClassVar[Mapping[str, float]] = {}
    term_names: ClassVar[tuple[str, ...]] = ()
    """Names of all terms, so that a misspelt weight is refused at once; checked later if empty."""
    batch_keys: ClassVar[tuple[str, ...]] = ()
    """What a batch must hold; checked with a message before the terms are computed."""
    fewest_images: int = 1
    """Images over all processes that the terms need."""
    n_directions: int = 1024
    """Directions of the term ``sigreg``."""
    trained_pooling: Pooling = "both"
    """What of the tokens is trained to stand for an image; ``mean`` says the class token is not."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        views: Views | None = None,
        weights: Mapping[str, float] | None = None,
        recipe: Recipe = Recipe(),
        init_from: str | None = None,
        max_nonfinite: int = 2,
    ) -> None:
        super().__init__(backbone, recipe, max_nonfinite)
        self.views = self.default_views(backbone) if views is None else views
        if self.views.in_chans != backbone.in_chans:
            raise InputError(
                f"the views make images of {self.views.in_chans} channel(s) but the backbone takes "
                f"{backbone.in_chans}; set in_chans of both to the same number"
            )
        self.weights = {"sigreg": 0.0, **self.default_weights, **(weights or {})}
        if self.term_names:
            self._check_weights(self.term_names)
        negative = {name: weight for name, weight in self.weights.items() if not weight >= 0}
        if negative:
            raise InputError(f"weights must not be negative, got {negative}")
        self.init_from = init_from
        self._started = False

    @abstractmethod
    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the named, unweighted float32 terms of a batch.

        Args:
            batch: What the views made, see the views' class.
            progress: Share of the run's optimiser steps that is done, in [0, 1].
        """

    @abstractmethod
    def default_views(self, backbone: Backbone) -> Views:
        """Return the views this method uses when none are given."""

    def update_teacher(self, progress: float) -> None:
        """Move what follows the student; called once after every optimiser step."""

    def after_step(self, progress: float) -> None:
        """Move the teacher."""
        self.update_teacher(progress)

    def restart_teacher(self) -> None:
        """Make what follows the student equal to it, after the student has got other weights."""

    @property
    def encoder(self) -> Backbone:
        """The network downstream tasks use: the teacher's where there is one."""
        return self.backbone

    @property
    def n_prototypes(self) -> int | None:
        """Number of prototypes, None for a method without any."""
        return None

    @property
    def prototypes(self) -> dict[str, int]:
        """Number of prototypes by the prefix of the monitored values that speak of them."""
        return {} if self.n_prototypes is None else {"": self.n_prototypes}

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that already know something."""
        return self.backbone.load_report is not None or self.init_from is not None

    def weight(self, term: str) -> float:
        """Return the weight of a term, 1 where none is set."""
        return self.weights.get(term, 1.0)

    def regulariser(self, vectors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the term ``sigreg`` where it has a weight: the mean of SIGReg over the views.

        The directions are the same for all views of one width and all processes, and drawn anew for
        every micro-batch.

        Args:
            vectors: What stands for the images, (B, D_i) for each view.
        """
        if self.weight("sigreg") == 0:
            return {}
        directions = {z.shape[1]: self._directions(z.shape[1]) for z in vectors}
        terms = [sigreg(z, directions[z.shape[1]].to(z.device)) for z in vectors]
        return {"sigreg": torch.stack(terms).mean()}

    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the terms of a batch, each with its weight.

        Raises:
            InputError: If the batch lacks what the terms need, or a weight has no term.
        """
        lacking = [key for key in self.batch_keys if key not in batch]
        if lacking:
            raise InputError(
                f"{plain_class(self).__name__} needs views that make {', '.join(self.batch_keys)}; "
                f"{type(self.views).__name__} does not make {', '.join(lacking)}"
            )
        terms = self.loss_terms(batch, progress)
        self._check_weights(self.term_names or tuple(terms))
        return {name: (self.weight(name), term) for name, term in terms.items()}

    def take_over(self, path: str) -> str:
        """Load an earlier stage of this objective and return one sentence on what was done."""
        return load_stage(self, read_stage(path), path)

    def take_over_earlier(self) -> list[str]:
        """Load ``init_from`` where it is given and say so."""
        return [] if self.init_from is None else [self.take_over(self.init_from)]

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tokens:
        """Return the encoder's tokens of images (B, C, H, W), in evaluation mode."""
        encoder = self.encoder
        training = encoder.training
        encoder.eval()
        try:
            result: Tokens = encoder(images)
            return result
        finally:
            encoder.train(training)

    def embed(self, images: Tensor, pooling: Pooling = "class") -> Tensor:
        """Return one vector for each image (B, C, H, W), (B, D) or (B, 2 D).

        Args:
            images: Normalised as the views do it.
            pooling: See :meth:`Tokens.pool`. An objective that does not train the class token
                always returns the mean patch token.
        """
        tokens = self.tokens(images)
        return tokens.pool("mean" if self.trained_pooling == "mean" else pooling).float()

    def describe(self) -> dict[str, Any]:
        """Return what a file with this encoder must say about itself, as plain data."""
        encoder = self.encoder
        place = next((name for name, module in self.named_modules() if module is encoder), "")
        return {
            "version": cxrssl.__version__,
            "objective": plain_class(self).__name__,
            "encoder": place,
            "backbone": {"class": type(encoder).__name__, "arguments": encoder.arguments},
            "normalisation": {"mean": self.views.mean, "std": self.views.std},
            "image_size": self.views.image_size,
            "pooling": self.trained_pooling,
        }

    # Lightning's hooks, in the order of a run.

    def configure_model(self) -> None:
        """Shard where the strategy asks for it, after an earlier stage was taken over whole."""
        if self._trainer is not None and isinstance(self.trainer.strategy, FullySharded):
            self._take_over_once()
        super().configure_model()

    def on_fit_start(self) -> None:
        """Say where the weights come from, and take over an earlier stage."""
        super().on_fit_start()
        if self.backbone.load_report is not None:
            rank_zero_info(f"Backbone from {self.backbone.load_report}")
        self._take_over_once()
        batch = self.global_batch() // self.trainer.accumulate_grad_batches
        check_batch(batch, self.fewest_images, plain_class(self).__name__)
        warn_of_local_norms(self, self.trainer.world_size)

    def on_validation_start(self) -> None:
        """Take over an earlier stage where nothing has been trained or restored."""
        self._take_over_once()

    def on_test_start(self) -> None:
        """Take over an earlier stage where nothing has been trained or restored."""
        self._take_over_once()

    def on_predict_start(self) -> None:
        """Take over an earlier stage where nothing has been trained or restored."""
        self._take_over_once()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the loss terms on held-out images."""
        self._log_held_out("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the loss terms on test images."""
        self._log_held_out("test", batch)

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Return embeddings (B, D) with the numbers of their images; NaN for corrupt ones."""
        embedding = self.embed(batch["image"])
        if "readable" in batch:
            embedding[~batch["readable"]] = torch.nan
        return {"image_number": batch["image_number"], "embedding": embedding}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint describe itself and the run it stands in."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["cxrssl"] = self.describe()

    def _take_over_once(self) -> None:
        """Load ``init_from`` before anything else, unless a checkpoint of the run is there."""
        if not self._started and self.trainer.ckpt_path is None:
            for sentence in self.take_over_earlier():
                rank_zero_info(sentence)
        self._started = True

    def _directions(self, dim: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._sketch_seed)
        return draw_directions(dim, self.n_directions, generator)

    def _log_held_out(self, name: str, batch: dict[str, Any]) -> None:
        if len(batch["image_number"]) * world_size() < self.fewest_images:
            return  # the rest of a split
        self.monitoring = False
        self._sketch_seed = 0  # the same directions in every validation
        terms = self._terms_and_loss(batch, self._held_out_progress())
        values = {f"{name}/{key}": value for key, value in terms.items()}
        size = len(batch["image_number"])
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)

    def _check_weights(self, terms: Sequence[str]) -> None:
        known = dict.fromkeys([*terms, *self.default_weights, "sigreg"])
        unknown = sorted(set(self.weights) - set(known))
        if unknown:
            raise InputError(
                f"no loss term is called {', '.join(unknown)}; {plain_class(self).__name__} has "
                f"{', '.join(known)}"
            )

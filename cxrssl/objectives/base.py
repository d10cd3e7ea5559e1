"""What every objective shares: the weighted sum, the optimiser, the teacher's moment, safety."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

import cxrssl
from cxrssl.backbones import Backbone, Pooling, Tokens
from cxrssl.errors import InputError
from cxrssl.losses import draw_directions, sigreg
from cxrssl.losses.distributed import all_sum, world_size
from cxrssl.objectives.nonfinite import NonFiniteSteps
from cxrssl.objectives.recipe import Recipe, build_optimizer, set_rates
from cxrssl.objectives.run_checks import check_batch, check_trainer, warn_of_local_norms
from cxrssl.objectives.running_statistics import RunningStatistics
from cxrssl.objectives.stage import load_stage, read_stage
from cxrssl.schedules import Schedule
from cxrssl.views import Views

__all__ = ["Objective"]


class Objective(LightningModule, ABC):
    """A self-supervised objective on a backbone.

    A subclass builds its heads and returns named loss terms; this class adds them up with their
    weights, logs each, optimises, clips each sub-module, moves the teacher, skips steps that are
    not finite, and makes checkpoints describe themselves.

    The torch generator is seeded for every micro-batch from (seed, epoch, micro-batch, rank), so a
    resumed run draws the same dropped residuals as an uninterrupted one. The seed is Lightning's
    global seed, 0 without one.

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

    backbone: Backbone
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
        super().__init__()
        self.backbone = backbone
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
        self.recipe = recipe
        self.init_from = init_from
        self.total_steps: int | None = None
        self.monitor_every: int | None = None
        self.monitoring = False
        self.monitored: dict[str, Tensor] = {}
        self._lr = recipe.lr
        self._sketch_seed = 0
        self._trained_steps = 0
        self._nonfinite = NonFiniteSteps(max_nonfinite)
        self._running_statistics = RunningStatistics()
        self._overflowed = False
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

    def forget_step(self) -> None:
        """Drop what was gathered for :meth:`update_teacher` since the last optimiser step."""

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
                f"{type(self).__name__} needs views that make {', '.join(self.batch_keys)}; "
                f"{type(self.views).__name__} does not make {', '.join(lacking)}"
            )
        terms = self.loss_terms(batch, progress)
        self._check_weights(self.term_names or tuple(terms))
        return {name: (self.weight(name), term) for name, term in terms.items()}

    @property
    def schedule_entries(self) -> int | None:
        """Length of the tables of scheduled values, None while the run's length is not known."""
        return None if self.total_steps is None else self.total_steps * self._units_per_step

    def scheduled(self, schedule: Schedule, progress: float) -> float:
        """Return a scheduled value, tabulated over the run once its length is known."""
        return schedule(progress, self.schedule_entries)

    def take_over(self, path: str) -> str:
        """Load an earlier stage of this objective and return one sentence on what was done."""
        return load_stage(self, read_stage(path), path)

    def take_over_earlier(self) -> list[str]:
        """Load ``init_from`` where it is given and say so."""
        return [] if self.init_from is None else [self.take_over(self.init_from)]

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters whose gradients are clipped together, by name of the sub-module."""
        groups = {name: list(child.parameters()) for name, child in self.named_children()}
        own = list(self.parameters(recurse=False))
        return {
            name: trained
            for name, parameters in {**groups, "self": own}.items()
            if (trained := [p for p in parameters if p.requires_grad])
        }

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
            "objective": type(self).__name__,
            "encoder": place,
            "backbone": {"class": type(encoder).__name__, "arguments": encoder.arguments},
            "normalisation": {"mean": self.views.mean, "std": self.views.std},
            "image_size": self.views.image_size,
        }

    # Lightning's hooks, in the order of a run.

    def setup(self, stage: str) -> None:
        """Refuse what would be wrong in silence."""
        check_trainer(self.trainer, stage)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the recipe's optimiser; also reads the length of the run."""
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise InputError(
                "the run has no end, so its schedules have none: set trainer.max_steps or "
                "trainer.max_epochs"
            )
        self.total_steps = int(steps)
        # Without a data module the batch is not known here, and the rate is taken as it is.
        self._lr = self.recipe.scaled_lr(self.global_batch() or self.recipe.reference_batch)
        # The fused step is several times faster, but does not let us unscale fp16 gradients.
        fused = str(self.trainer.precision) != "16-mixed"
        return build_optimizer(
            self.named_parameters(), self.backbone, self.recipe, self._lr.value, fused=fused
        )

    def global_batch(self) -> int:
        """Return the images of one optimiser step over all processes; 0 if it cannot be told."""
        datamodule = getattr(self.trainer, "datamodule", None)
        per_rank = getattr(datamodule, "batch_size", 0)
        return int(per_rank) * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def on_fit_start(self) -> None:
        """Say where the weights come from, and take over an earlier stage."""
        if self.backbone.load_report is not None:
            rank_zero_info(f"Backbone from {self.backbone.load_report}")
        self._take_over_once()
        batch = self.global_batch() // self.trainer.accumulate_grad_batches
        check_batch(batch, self.fewest_images, type(self).__name__)
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

    def on_train_start(self) -> None:
        """Say how long the run is in every unit and what the rate became."""
        steps, batch = self.total_steps or 0, self.global_batch()
        per_epoch = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        images = f" = {steps * batch:,} images" if batch else ""
        rank_zero_info(
            f"Run: {steps:,} steps = {steps / per_epoch:,.1f} epochs{images}. "
            f"Global batch {batch or 'not known'}: {self.trainer.world_size} process(es), "
            f"{self.trainer.accumulate_grad_batches} accumulated. "
            f"Learning rate {self.recipe.lr.value:.3g}, {self.recipe.lr_scaling} scaling: "
            f"{self._lr.value:.3g}."
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the weighted loss of a micro-batch; zero, with zero gradients, if not finite."""
        self._seed_step(batch_idx)
        self._running_statistics.keep(self)
        step = self.trainer.global_step
        every: int = self.monitor_every or getattr(self.trainer, "log_every_n_steps", 0) or 50
        self.monitoring = step % every == 0
        self.monitored = {}
        images = [batch["image_number"]] if "image_number" in batch else []
        for numbers in images:
            self._nonfinite.see(numbers)
        terms = self._terms_and_loss(batch, self._progress(step))
        total = terms["loss"]
        means = all_sum(torch.stack(list(terms.values()))) / world_size()
        # The mean over processes is not finite on all of them as soon as it is not on one, so
        # every process takes the same branch.
        if not torch.isfinite(means[0]):
            self._nonfinite.spoil("loss", [] if torch.isfinite(total) else images)
            # Every parameter takes part in the backward pass, as DDP needs it.
            return torch.stack([(p * 0).sum() for p in self.parameters() if p.requires_grad]).sum()
        values = dict(zip(terms, means, strict=True))
        self.log("loss", values.pop("loss"), prog_bar=True)
        self.log_dict({f"loss/{name}": value for name, value in values.items()})
        return total

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

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each sub-module by itself; drop gradients that are not finite."""
        clip = self.recipe.clip if gradient_clip_val is None else gradient_clip_val
        limit = float("inf") if clip is None else clip
        norms = {
            name: nn.utils.clip_grad_norm_(parameters, limit).detach().to(self.device)
            for name, parameters in self.clip_groups().items()
        }
        if self.monitoring:
            self.monitored |= {f"grad_norm_{name}": norm for name, norm in norms.items()}
        if not torch.isfinite(torch.stack(list(norms.values()))).all():
            self._overflowed = self._scaler_searches()
            if not self._overflowed:
                self._nonfinite.spoil("gradient")
        if self._nonfinite.spoilt:
            optimizer.zero_grad(set_to_none=True)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Set this step's rates, step, and move the teacher unless the step was skipped."""
        step = self.trainer.global_step
        progress = self._progress(step)
        entries = self.schedule_entries
        lr, decay = set_rates(optimizer, self.recipe, self._lr, progress, step, entries)
        self._overflowed = False
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        skipped = bool(self._nonfinite.spoilt) or self._overflowed
        self._running_statistics.close(restore=skipped)
        if skipped:
            self.forget_step()
        else:
            self.update_teacher(progress)
        self._nonfinite.close(step, self._image_names)
        self.log_dict(
            {
                "schedule/lr": lr,
                "schedule/weight_decay": decay,
                "health/nonfinite_steps": float(self._nonfinite.total),
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint describe itself and the run it stands in."""
        checkpoint["cxrssl"] = self.describe()
        checkpoint["cxrssl_run"] = {
            "total_steps": self.total_steps,
            "nonfinite_steps": self._nonfinite.total,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know how far training had come, for the schedules of held-out losses."""
        run = checkpoint.get("cxrssl_run", {})
        self.total_steps = run.get("total_steps")
        self._nonfinite.total = run.get("nonfinite_steps", 0)
        self._trained_steps = checkpoint.get("global_step", 0)

    def _take_over_once(self) -> None:
        """Load ``init_from`` before anything else, unless a checkpoint of the run is there."""
        if not self._started and self.trainer.ckpt_path is None:
            for sentence in self.take_over_earlier():
                rank_zero_info(sentence)
        self._started = True

    @property
    def _units_per_step(self) -> int:
        per_step = self.recipe.schedule_unit == "step" or self._trainer is None
        return 1 if per_step else int(self.trainer.accumulate_grad_batches)

    def _progress(self, step: int) -> float:
        """Return where a step stands in the run: at its last unit, see ``schedule_unit``."""
        if not self.total_steps:
            return 0.0
        units = self._units_per_step
        return ((step + 1) * units - 1) / (self.total_steps * units)

    def _terms_and_loss(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        """Return the loss and its unweighted terms."""
        terms = self.weighted_terms(batch, progress)
        total = torch.stack([weight * term for weight, term in terms.values()]).sum()
        return {"loss": total, **{name: term for name, (_, term) in terms.items()}}

    def _directions(self, dim: int) -> Tensor:
        generator = torch.Generator().manual_seed(self._sketch_seed)
        return draw_directions(dim, self.n_directions, generator)

    def _held_out_progress(self) -> float:
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        return self._progress(self.trainer.global_step if fitting else self._trained_steps)

    def _log_held_out(self, name: str, batch: dict[str, Any]) -> None:
        if len(batch["image_number"]) * world_size() < self.fewest_images:
            return  # the rest of a split
        self.monitoring = False
        self._sketch_seed = 0  # the same directions in every validation
        terms = self._terms_and_loss(batch, self._held_out_progress())
        values = {f"{name}/{key}": value for key, value in terms.items()}
        size = len(batch["image_number"])
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)

    def _seed_step(self, batch_idx: int) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        shared = [seed, self.trainer.current_epoch, batch_idx]
        torch.manual_seed(_seed([*shared, self.trainer.global_rank]))
        self._sketch_seed = _seed(shared)

    def _check_weights(self, terms: Sequence[str]) -> None:
        known = dict.fromkeys([*terms, *self.default_weights, "sigreg"])
        unknown = sorted(set(self.weights) - set(known))
        if unknown:
            raise InputError(
                f"no loss term is called {', '.join(unknown)}; {type(self).__name__} has "
                f"{', '.join(known)}"
            )

    def _scaler_searches(self) -> bool:
        """Return whether float16 loss scaling explains a gradient that is not finite.

        The scaler finds its scale by overflowing, skips the step by itself and halves the scale.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler is not None and scaler.get_scale() >= 1

    def _image_names(self, numbers: Sequence[int]) -> list[str]:
        describe = getattr(getattr(self.trainer, "datamodule", None), "describe_images", None)
        return list(map(str, numbers)) if describe is None else describe(numbers)


def _seed(key: list[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])

"""How any of our modules is trained: by a recipe, resumable, and past steps that are not finite."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from cxrssl.backbones import Backbone
from cxrssl.errors import InputError
from cxrssl.losses.distributed import all_sum, world_size
from cxrssl.objectives.compiling import compile_blocks
from cxrssl.objectives.nonfinite import NonFiniteSteps
from cxrssl.objectives.recipe import Recipe, build_optimizer, set_rates
from cxrssl.objectives.resuming import check_optimizers, check_weights
from cxrssl.objectives.run_checks import check_start, check_trainer
from cxrssl.objectives.running_statistics import RunningStatistics
from cxrssl.objectives.sharding import FullySharded, plain_class, shard, whole, zero_of
from cxrssl.schedules import Schedule

__all__ = ["RecipeModule"]


class RecipeModule(LightningModule, ABC):
    """A module with a backbone whose weighted loss terms a recipe minimises.

    It adds up the terms and logs each, optimises, clips each sub-module by itself, and skips steps
    that are not finite. The torch generator is seeded for every micro-batch from (seed, epoch,
    micro-batch, rank), so a resumed run draws the same dropped residuals as an uninterrupted one.
    The seed is Lightning's global seed, 0 without one.

    Args:
        backbone: What the recipe's rates by layer refer to.
        recipe: How the module is optimised.
        max_nonfinite: Steps in a row whose loss or gradient is not finite that are skipped before
            the run stops.

    Raises:
        NonFiniteLossError: In training, see ``max_nonfinite``.
    """

    backbone: Backbone
    sharded_methods: ClassVar[tuple[str, ...]] = ()
    """Methods that need the weights, besides those they call; empty if it cannot be sharded."""

    def __init__(self, backbone: Backbone, recipe: Recipe, max_nonfinite: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.recipe = recipe
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
        self._resumed: list[dict[str, Any]] | None = None

    @abstractmethod
    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the float32 loss terms of a batch by name, each with its weight.

        Args:
            batch: What the data module made.
            progress: Share of the run's optimiser steps that is done, in [0, 1].
        """

    def after_step(self, progress: float) -> None:
        """Move what follows the trained weights; called once after every optimiser step."""

    def forget_step(self) -> None:
        """Drop what was gathered for :meth:`after_step` since the last optimiser step."""

    def rate_factor(self, name: str) -> float:
        """Return a factor on the learning rate of a parameter, besides those of the recipe."""
        return 1.0

    @property
    def schedule_entries(self) -> int | None:
        """Length of the tables of scheduled values, None while the run's length is not known."""
        return None if self.total_steps is None else self.total_steps * self._units_per_step

    def scheduled(self, schedule: Schedule, progress: float) -> float:
        """Return a scheduled value, tabulated over the run once its length is known."""
        return schedule(progress, self.schedule_entries)

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters whose gradients are clipped together, by name of the sub-module."""
        groups = {name: list(child.parameters()) for name, child in self.named_children()}
        own = list(self.parameters(recurse=False))
        return {
            name: trained
            for name, parameters in {**groups, "self": own}.items()
            if (trained := [p for p in parameters if p.requires_grad])
        }

    # Lightning's hooks, in the order of a run.

    def setup(self, stage: str) -> None:
        """Refuse what would be wrong in silence."""
        self._resumed = None
        check_trainer(self.trainer, stage, self, shardable=bool(self.sharded_methods))
        check_start(self.trainer)

    def configure_model(self) -> None:
        """Compile the blocks where the recipe asks for it, shard where the strategy does."""
        if self.recipe.compile_blocks:
            compile_blocks(self)
        strategy = None if self._trainer is None else self.trainer.strategy
        if isinstance(strategy, FullySharded):
            strategy.synchronise_norms(self)
            shard(self, strategy, self.sharded_methods)

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
            self.named_parameters(),
            self.backbone,
            self.recipe,
            self._lr.value,
            fused=fused,
            factor=self.rate_factor,
        )

    def global_batch(self) -> int:
        """Return the images of one optimiser step over all processes; 0 if it cannot be told."""
        datamodule = getattr(self.trainer, "datamodule", None)
        per_rank = getattr(datamodule, "batch_size", 0)
        return int(per_rank) * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def on_fit_start(self) -> None:
        """Refuse the optimiser's state of another recipe.

        Raises:
            InputError: If the checkpoint's does not fit.
        """
        # A sharding strategy, which restores later than others, checks it by itself.
        if self._resumed is not None:
            check_optimizers(self.trainer.optimizers, self._resumed, self._checkpoint_name())
        self._resumed = None

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
            return self._spoilt_loss(total)
        values = dict(zip(terms, means, strict=True))
        self.log("loss", values.pop("loss"), prog_bar=True)
        self.log_dict({f"loss/{name}": value for name, value in values.items()})
        return total

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
            name: whole(nn.utils.clip_grad_norm_(parameters, limit).detach()).to(self.device)
            for name, parameters in self.clip_groups().items()
        }
        if self.monitoring:
            self.monitored |= {f"grad_norm_{name}": norm for name, norm in norms.items()}
        finite = torch.isfinite(torch.stack(list(norms.values()))).all()
        if not finite and not self._nonfinite.spoilt:
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
        """Set this step's rates, step, and call :meth:`after_step` unless it was skipped."""
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
            self.after_step(progress)
        self._nonfinite.close(step, self._image_names)
        self.log_dict(
            {
                "schedule/lr": lr,
                "schedule/weight_decay": decay,
                "health/nonfinite_steps": float(self._nonfinite.total),
            }
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the run stands."""
        checkpoint["cxrssl_run"] = {
            "module": plain_class(self).__name__,
            "total_steps": self.total_steps,
            "nonfinite_steps": self._nonfinite.total,
            "nonfinite_in_a_row": self._nonfinite.in_a_row,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Know how far training had come, for the schedules of held-out losses.

        Raises:
            InputError: If the checkpoint is not of this module.
        """
        source = self._checkpoint_name()
        check_weights(self, plain_class(self).__name__, checkpoint, source)
        self._resumed = checkpoint.get("optimizer_states", [])
        run = checkpoint["cxrssl_run"]
        self.total_steps = run.get("total_steps")
        self._nonfinite.total = run.get("nonfinite_steps", 0)
        self._nonfinite.in_a_row = run.get("nonfinite_in_a_row", 0)
        self._trained_steps = checkpoint.get("global_step", 0)

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

    def _spoilt_loss(self, total: Tensor) -> Tensor:
        """Return what is fitted instead of a loss that is not finite; the step is skipped later."""
        if isinstance(self.trainer.strategy, FullySharded):
            # The reduction of this loss's own gradients also takes away those that earlier
            # micro-batches have left unreduced.
            return total
        # Every parameter takes part in the backward pass, as DDP needs it.
        return zero_of(p for p in self.parameters() if p.requires_grad)

    def _held_out_progress(self) -> float:
        fitting = self.trainer.state.fn == TrainerFn.FITTING
        return self._progress(self.trainer.global_step if fitting else self._trained_steps)

    def _seed_step(self, batch_idx: int) -> None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))
        shared = [seed, self.trainer.current_epoch, batch_idx]
        torch.manual_seed(_seed([*shared, self.trainer.global_rank]))
        self._sketch_seed = _seed(shared)

    def _scaler_searches(self) -> bool:
        """Return whether float16 loss scaling explains a gradient that is not finite.

        The scaler finds its scale by overflowing, skips the step by itself and halves the scale.
        """
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return scaler is not None and scaler.get_scale() >= 1

    def _checkpoint_name(self) -> str:
        path = None if self._trainer is None else self.trainer.ckpt_path
        return "the checkpoint" if path is None else str(path)

    def _image_names(self, numbers: Sequence[int]) -> list[str]:
        describe = getattr(getattr(self.trainer, "datamodule", None), "describe_images", None)
        return list(map(str, numbers)) if describe is None else describe(numbers)


def _seed(key: list[int]) -> int:
    return int(np.random.SeedSequence(key).generate_state(1)[0])

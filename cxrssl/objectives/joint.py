"""Several objectives on one backbone."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from cxrssl.backbones import Backbone, Pooling
from cxrssl.errors import InputError
from cxrssl.objectives.base import Objective
from cxrssl.objectives.recipe import Recipe
from cxrssl.objectives.sharding import zero_of
from cxrssl.schedules import Schedule
from cxrssl.views import JointViews, Views

__all__ = ["Joint"]


class Joint(Objective):
    """Trains several objectives on one backbone, each with its own views, heads and teacher.

    An image is read once; every objective makes its own views of it (:class:`JointViews`). The
    loss is the sum of the objectives' weighted terms, each times the objective's share; a term
    ``ibot`` of an objective called ``dino`` is logged as ``loss/dino/ibot``. All parameters are
    optimised by one recipe. An objective alone and as the only one here, with a share of 1, give
    equal losses for equal seeds.

    In a config, the objectives are given without a backbone::

        objectives:
          dino: {class_path: DINOv2, init_args: {centering: sinkhorn}}
          mlvicx: {class_path: MLVICX}
        shares: {dino: 1.0, mlvicx: 0.1}

    Args:
        backbone: What all objectives train; see :class:`Objective`.
        objectives: Makes each objective, by name, for the backbone. Their ``views``, ``weights``
            and own options count; of their recipes only the first one's does, where ``recipe`` is
            left out, and their ``max_nonfinite`` do not.
        shares: Factor on each objective's loss, constant or scheduled; 1 where absent. In steps of
            share 0 an objective is not computed and what it has for itself stands still; its
            teacher follows the backbone. At least one share must be positive at every step.
        encoder: Name of the objective whose encoder is used downstream; the first one if left out.
        recipe: How all is optimised; the first objective's if left out.
        init_from: Checkpoint of an earlier stage of these same objectives. To start from a stage of
            one objective alone, give that one its ``init_from``: the backbone is then its student,
            from which the others' teachers start as well.
        max_nonfinite: See :class:`Objective`.

    Raises:
        InputError: If there is no objective, a name is unknown or cannot be used, a share is
            negative, or several stages are to be taken over.
    """

    def __init__(
        self,
        backbone: Backbone,
        objectives: dict[str, Callable[[Backbone], Objective]],
        *,
        shares: Mapping[str, float | Schedule] | None = None,
        encoder: str | None = None,
        recipe: Recipe | None = None,
        init_from: str | None = None,
        max_nonfinite: int = 2,
    ) -> None:
        if not objectives:
            raise InputError("objectives is empty: name at least one")
        children = _made(backbone, objectives)
        first, child = next(iter(children.items()))
        if encoder is not None and encoder not in children:
            raise InputError(f"encoder must be one of {', '.join(children)}, got {encoder!r}")
        super().__init__(
            backbone,
            views=JointViews({n: c.views for n, c in children.items()}, main=encoder),
            recipe=child.recipe if recipe is None else recipe,
            init_from=init_from,
            max_nonfinite=max_nonfinite,
        )
        self.objectives = nn.ModuleDict(children)
        self.shares = _checked_shares(shares or {}, list(children))
        self.encoder_of = first if encoder is None else encoder
        self.trained_pooling = children[self.encoder_of].trained_pooling
        self.fewest_images = max(child.fewest_images for child in children.values())
        self._recipe_of = first if recipe is None else None
        self._check_stages()

    def default_views(self, backbone: Backbone) -> Views:
        """Never needed: the views are those of the objectives."""
        raise NotImplementedError

    @property
    def children_by_name(self) -> dict[str, Objective]:
        """The objectives by name."""
        return {name: cast(Objective, child) for name, child in self.objectives.items()}

    @property
    def encoder(self) -> Backbone:
        """The encoder of the objective called ``encoder``."""
        return self.children_by_name[self.encoder_of].encoder

    @property
    def prototypes(self) -> dict[str, int]:
        """Number of prototypes of each objective that has any, by the prefix of its values."""
        return {
            f"{name}/{prefix}": number
            for name, child in self.children_by_name.items()
            for prefix, number in child.prototypes.items()
        }

    @property
    def pretrained(self) -> bool:
        """Whether training starts from weights that already know something."""
        return super().pretrained or any(c.pretrained for c in self.children_by_name.values())

    def share(self, name: str, progress: float) -> float:
        """Return the factor on an objective's loss."""
        return self.scheduled(self.shares[name], progress)

    def loss_terms(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of :class:`JointViews`, as ``objective/term``."""
        return {name: term for name, (_, term) in self.weighted_terms(batch, progress).items()}

    def weighted_terms(
        self, batch: dict[str, Any], progress: float
    ) -> dict[str, tuple[float, Tensor]]:
        """Return the terms, each with its weight times the objective's share."""
        terms: dict[str, tuple[float, Tensor]] = {}
        for name, child in self.children_by_name.items():
            share = self.share(name, progress)
            if share == 0:
                continue
            self._lead(child)
            for term, (weight, value) in child.weighted_terms(batch[name], progress).items():
                terms[f"{name}/{term}"] = share * weight, value
            if self.monitoring:
                values = child.monitored.items()
                self.monitored |= {f"{name}/{key}": value for key, value in values}
        return terms

    def embed(self, images: Tensor, pooling: Pooling = "class") -> Tensor:
        """Return what the objective called ``encoder`` returns."""
        return self.children_by_name[self.encoder_of].embed(images, pooling)

    def update_teacher(self, progress: float) -> None:
        """Move every objective's teacher."""
        for child in self.children_by_name.values():
            self._lead(child)
            child.update_teacher(progress)

    def forget_step(self) -> None:
        """Have every objective drop what it gathered since the last optimiser step."""
        for child in self.children_by_name.values():
            child.forget_step()

    def restart_teacher(self) -> None:
        """Make every objective's teacher equal to its student."""
        for child in self.children_by_name.values():
            child.restart_teacher()

    def clip_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return each objective's groups; a shared parameter stays in the first that has it."""
        groups: dict[str, list[nn.Parameter]] = {}
        seen: set[nn.Parameter] = set()
        for name, child in self.children_by_name.items():
            for group, parameters in child.clip_groups().items():
                fresh = [p for p in parameters if p not in seen]
                seen.update(fresh)
                if fresh:
                    groups[f"{name}/{group}"] = fresh
        return groups

    def take_over_earlier(self) -> list[str]:
        """Load an earlier stage of all objectives, or of one of them."""
        sentences = super().take_over_earlier()
        for name, child in self.children_by_name.items():
            if child.init_from is not None:
                sentences += [f"{name}: {sentence}" for sentence in child.take_over_earlier()]
                for other in self.children_by_name.values():
                    if other is not child:
                        other.restart_teacher()
        return sentences

    def setup(self, stage: str) -> None:
        """Refuse what would be wrong in silence, and hand the run to the objectives."""
        super().setup(stage)
        for child in self.children_by_name.values():
            self._lead(child)

    def on_fit_start(self) -> None:
        """Say where weights come from and whose recipe is used."""
        super().on_fit_start()
        if self._recipe_of is not None and len(self.objectives) > 1:
            rank_zero_info(f"All objectives are optimised by the recipe of {self._recipe_of}.")

    def _terms_and_loss(self, batch: dict[str, Any], progress: float) -> dict[str, Tensor]:
        """Return the loss and its terms; every parameter takes part in it, as DDP needs it."""
        result = super()._terms_and_loss(batch, progress)
        idle = self._idle_parameters(progress)
        if idle:
            result["loss"] = result["loss"] + zero_of(idle)
        return result

    def _log_held_out(self, name: str, batch: dict[str, Any]) -> None:
        progress = self._held_out_progress()
        if any(self.share(each, progress) > 0 for each in self.objectives):
            super()._log_held_out(name, batch)

    def _idle_parameters(self, progress: float) -> list[nn.Parameter]:
        """Return the parameters that only objectives of share 0 have."""
        idle: list[Objective] = []
        busy: list[Objective] = []
        for name, child in self.children_by_name.items():
            (busy if self.share(name, progress) else idle).append(child)
        used = {parameter for child in busy for parameter in child.parameters()} if idle else set()
        unused = [p for child in idle for p in child.parameters() if p not in used]
        return [p for p in dict.fromkeys(unused) if p.requires_grad]

    def _check_shares(self) -> None:
        """Refuse a run with a step in which nothing would be trained."""
        steps = self.total_steps or 0
        constant = [s.value for s in self.shares.values() if s == Schedule(s.value)]
        if any(value > 0 for value in constant):
            return
        for step in range(steps):
            progress = self._progress(step)
            if not any(self.share(name, progress) > 0 for name in self.objectives):
                raise InputError(
                    f"all shares are 0 at step {step} of {steps}, where nothing would be trained: "
                    "give one of them a start, or a constant"
                )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimiser, and check the shares now that the length of the run is known."""
        optimizer = super().configure_optimizers()
        self._check_shares()
        return optimizer

    def configure_gradient_clipping(self, *args: Any, **kwargs: Any) -> None:
        """Leave out what objectives of share 0 have for themselves, and clip the others."""
        # Without a gradient an optimiser leaves them alone; with one of 0 it would decay them.
        for parameter in self._idle_parameters(self._progress(self.trainer.global_step)):
            parameter.grad = None
        super().configure_gradient_clipping(*args, **kwargs)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and log the shares."""
        progress = self._progress(self.trainer.global_step)
        super().optimizer_step(*args, **kwargs)
        self.log_dict({f"share/{name}": self.share(name, progress) for name in self.objectives})

    def _lead(self, child: Objective) -> None:
        """Let an objective stand where this one stands in the run."""
        if self._trainer is not None:
            child.trainer = self._trainer
        child.recipe = self.recipe
        child.total_steps = self.total_steps
        child.monitoring, child.monitored = self.monitoring, {}
        child._sketch_seed = self._sketch_seed

    def _check_stages(self) -> None:
        stages = [name for name, c in self.children_by_name.items() if c.init_from is not None]
        if len(stages) + (self.init_from is not None) > 1:
            given = ", ".join([*stages, *["joint"] * (self.init_from is not None)])
            raise InputError(
                f"one backbone can go on from one stage only, but {given} each name one"
            )


def _made(
    backbone: Backbone, objectives: Mapping[str, Callable[[Backbone], Objective]]
) -> dict[str, Objective]:
    """Return the objectives; none but the first may give the backbone new parts."""
    children: dict[str, Objective] = {}
    for name, make in objectives.items():
        if hasattr(nn.ModuleDict, name):
            raise InputError(f"an objective cannot be called {name!r}: choose another name")
        before = len(list(backbone.parameters()))
        children[name] = make(backbone)
        if isinstance(children[name], Joint):
            raise InputError(f"{name} is a Joint: name its objectives here instead")
        if len(children) > 1 and len(list(backbone.parameters())) != before:
            raise InputError(
                f"{name} changes the backbone that {next(iter(children))} has copied already: "
                f"name {name} first, or give the backbone its gates in the config"
            )
    return children


def _checked_shares(
    shares: Mapping[str, float | Schedule], names: list[str]
) -> dict[str, Schedule]:
    unknown = sorted(set(shares) - set(names))
    if unknown:
        raise InputError(
            f"shares names {', '.join(unknown)}; the objectives are {', '.join(names)}"
        )
    schedules = {
        name: share if isinstance(share, Schedule) else Schedule(share)
        for name, share in ((name, shares.get(name, 1.0)) for name in names)
    }
    for name, schedule in schedules.items():
        ends = [schedule.value, schedule.start]
        ends += [] if schedule.final is None else [schedule.final]
        if not all(0 <= end < float("inf") for end in ends):
            raise InputError(f"the share of {name} must be finite and not negative, got {schedule}")
    return schedules

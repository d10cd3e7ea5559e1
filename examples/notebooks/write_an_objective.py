# %% [markdown]
# # Write an objective of your own
#
# An objective is a backbone, views, heads, and a function from a batch to named losses.
# Optimiser, schedules, clipping, moving averages, NaN policy, probes, checkpoints, resuming and
# distribution come with the base class. Runs in a minute on a CPU.

# %%
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Trainer, seed_everything
from torch import Tensor, nn

from cxrssl.backbones import Backbone, ViT
from cxrssl.callbacks import OnlineProbe
from cxrssl.data import PhantomDataModule
from cxrssl.objectives import Objective, Recipe, Teacher
from cxrssl.schedules import Schedule
from cxrssl.views import PairViews, Views

# %% [markdown]
# ## Prediction between two views, and of the patches they share nothing of
#
# BYOL predicts the teacher's token of another view. Here is BYOL with one more term: the mean
# patch token of a view must be predicted from the class token of the other one.


# %%
class TwoLevelBYOL(Objective):
    """BYOL on class tokens, and from them on mean patch tokens.

    Args:
        backbone: The student; it needs a class token.
        hidden: Width of the predictors.
        **options: See `Objective`.
    """

    # With its names given, a misspelt weight is refused at once.
    term_names = ("class", "patches")
    batch_keys = ("views",)

    def __init__(self, backbone: Backbone, hidden: int = 256, **options: Any) -> None:
        super().__init__(backbone, **options)
        dim = backbone.embed_dim
        self.predictors = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
                for name in self.term_names
            }
        )
        self.teacher = Teacher(backbone, momentum=Schedule(0.99, final=1.0))

    def default_views(self, backbone: Backbone) -> Views:
        """Return two views at the backbone's size."""
        return PairViews(image_size=backbone.img_size, in_chans=backbone.in_chans)

    def loss_terms(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the terms of a batch of `PairViews`."""
        views = batch["views"].unbind(1)
        tokens = [self.backbone(view) for view in views]
        with torch.no_grad():
            wanted = [self.teacher(view) for view in reversed(views)]
        terms = {}
        for name, pooling in (("class", "class"), ("patches", "mean")):
            predicted = torch.cat([self.predictors[name](each.cls) for each in tokens])
            target = torch.cat([each.pool(pooling) for each in wanted])
            # Losses are float32 whatever the precision of the run.
            cosine = F.cosine_similarity(predicted.float(), target.float())
            terms[name] = 1 - cosine.mean()
        return terms

    def update_teacher(self, progress: float) -> None:
        """Move the teacher after an optimiser step."""
        self.teacher.update(self.backbone, progress, self.schedule_entries)

    @property
    def encoder(self) -> Backbone:
        """The teacher's backbone, which probes and files use."""
        return self.teacher.module


# %% [markdown]
# ## Check it before you train it
#
# Two checks find most mistakes: the same seed gives the same losses, and every trained parameter
# gets a gradient.

# %%
torch.set_num_threads(2)


def tiny_vit() -> ViT:
    """Return a small encoder, always the same."""
    torch.manual_seed(0)
    return ViT("vit_tiny", img_size=64, patch_size=16, width=96, depth=4, heads=3)


data = PhantomDataModule(
    1000, size=96, severity=5.0, views=PairViews(image_size=64), batch_size=64, num_workers=1
)
data.setup("fit")
batch = next(iter(data.train_dataloader()))
first, second = (TwoLevelBYOL(tiny_vit()).loss_terms(batch, 0.0) for _ in range(2))
assert all(torch.equal(first[name], second[name]) for name in first)

objective = TwoLevelBYOL(tiny_vit())
sum(objective.loss_terms(batch, 0.0).values()).backward()
without = [n for n, p in objective.named_parameters() if p.requires_grad and p.grad is None]
assert not without, without

# %% [markdown]
# ## Train it

# %%
seed_everything(0)
objective = TwoLevelBYOL(
    tiny_vit(),
    weights={"patches": 0.5},
    recipe=Recipe(lr=Schedule(1e-3, final=0.0, warmup=0.1), lr_scaling="none", layer_decay=1.0),
)
trainer = Trainer(
    max_epochs=8,
    accelerator="cpu",
    callbacks=[OnlineProbe(every_n_epochs=4)],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    use_distributed_sampler=False,
    log_every_n_steps=10,
)
trainer.fit(objective, datamodule=data)
for name, value in trainer.callback_metrics.items():
    if name.startswith("loss") or "macro" in name:
        print(f"{name}: {float(value):.3f}")

# %% [markdown]
# ## From here
#
# Saved in `mine.py`, the class is as good as a built-in one:
#
# ```bash
# python -m cxrssl fit --config examples/quickstart.yaml --model mine.TwoLevelBYOL
# ```
#
# and can stand beside others in a `Joint`. Under `--trainer.strategy ddp` every process computes
# the terms of its share of the batch, and gradients are averaged; a term that compares images
# with each other should gather them first (`cxrssl.losses.distributed`).

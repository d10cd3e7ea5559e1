# %% [markdown]
# # Adapt published weights to your hospital
#
# RAD-DINO was DINOv2 continued on radiographs. The same is worth doing once more for a hospital's
# own scanners and patients: some 30,000 images, one GPU, a day. This shows each step at a size
# that runs on a CPU in minutes, with generated radiographs and weights made here in RAD-DINO's
# layout; what changes at full size is said at each step.

# %%
import tempfile
from pathlib import Path

import torch
from lightning import Trainer, seed_everything
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from cxrssl.backbones import ViT, load_encoder
from cxrssl.callbacks import EncoderFile, Health, OnlineProbe
from cxrssl.data import PhantomDataModule
from cxrssl.evaluation import EvaluationOptions, evaluate, score_table
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2, Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import MultiCrop

work = Path(tempfile.mkdtemp())
torch.set_num_threads(2)
SIZE, PATCH = 64, 16

# %% [markdown]
# ## The published weights
#
# At full size: download `microsoft/rad-dino` and give its folder, or `hf:microsoft/rad-dino`.
# Here is a folder of the same layout: `config.json`, `preprocessor_config.json` and
# `model.safetensors`. Its weights are random, which is the hardest start there is.

# %%
seed_everything(0)
published = work / "published"
Dinov2Model(
    Dinov2Config(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=3,
        num_channels=3,
    )
).save_pretrained(published)
side = {"height": SIZE, "width": SIZE}
BitImageProcessor(
    size={"shortest_edge": SIZE}, crop_size=side, image_mean=[0.5307] * 3, image_std=[0.2583] * 3
).save_pretrained(published)
before = load_encoder(published)
print(before.load_report)

# %% [markdown]
# ## Your images
#
# At full size: `CXRDataModule("index.csv", "/data/radiographs", ...)`. Split by patient before
# anything else, and keep the test patients out of pretraining as well: `cxrssl check` says which
# images and patients pretraining has seen of a test set.

# %%
data = PhantomDataModule(1500, size=96, severity=5.0, batch_size=64, num_workers=1)

# %% [markdown]
# ## Continue training
#
# The encoder starts from the published weights, and so does its teacher; heads are fresh, and
# learn alone for the first steps so that they do not disturb what is there
# (`freeze_backbone_steps`). Normalise as the weights expect it: the views take mean and standard
# deviation of the encoder.
#
# At full size the recipe is `examples/recipes/adapt_rad_dino.yaml` on top of
# `rad_dino_vitb14_518.yaml`: ViT-B/14 at 518 px, batches of 16 with 8 accumulated, `bf16-mixed`,
# `--model.backbone.activation_checkpointing true` where memory is short.

# %%
mean, std = before.normalisation
objective = DINOv2(
    ViT(
        "vit_tiny",
        img_size=SIZE,
        patch_size=PATCH,
        in_chans=3,
        width=96,
        depth=4,
        heads=3,
        layer_scale=1.0,
        weights=str(published / "model.safetensors"),
    ),
    views=MultiCrop(
        global_size=SIZE,
        local_size=32,
        n_local=2,
        global_scale=(0.5, 1.0),
        local_scale=(0.2, 0.5),
        in_chans=3,
        mean=mean,
        std=std,
    ),
    dino_head=lambda dim: DINOHead(dim, prototypes=128, hidden=256, bottleneck=64),
    centering="sinkhorn",
    teacher_temperature=Schedule(0.03, start=0.02, warmup=0.3),
    momentum=Schedule(0.99, final=1.0),
    recipe=Recipe(
        lr=Schedule(2e-3, final=1e-6, warmup=0.1),
        lr_scaling="none",
        weight_decay=Schedule(0.04),
        layer_decay=1.0,
        patch_embed_lr=1.0,
        freeze_last_layer=0.05,
        freeze_backbone_steps=10,
    ),
)
data.views = objective.views
trainer = Trainer(
    max_epochs=12,
    accelerator="cpu",
    default_root_dir=work,
    logger=False,
    callbacks=[OnlineProbe(every_n_epochs=6), Health(), EncoderFile()],
    use_distributed_sampler=False,
    enable_progress_bar=False,
    log_every_n_steps=10,
)
trainer.fit(objective, datamodule=data)

# %% [markdown]
# ## Before and after
#
# Both encoders on the same labelled test images, compared on the same resamples of patients.
# Adapt further, or stop, by the interval of the difference; and look at the subgroups, since an
# average can rise while a group falls.

# %%
after = load_encoder(next(work.rglob("encoder.safetensors")))
results = evaluate(
    {"after": after, "before": before},
    data,
    EvaluationOptions(methods=["linear"], shares=[], shots=[], replicates=500),
)
print(score_table(results))
results.write(work / "evaluation")
print(sorted(path.name for path in (work / "evaluation").iterdir()))

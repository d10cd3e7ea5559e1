# %% [markdown]
# # Pretrain an encoder on a folder of radiographs
#
# From a folder of images to an encoder and a first look at it. Open this file as a notebook (VS
# Code does, Jupyter does with jupytext) or run it with `python`. It takes a few minutes on two
# CPU cores, since generated radiographs stand in for yours.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning import Trainer, seed_everything
from matplotlib.figure import Figure

from cxrssl.analysis import plot_patch_pca
from cxrssl.backbones import ViT, load_encoder
from cxrssl.callbacks import EncoderFile, Health, OnlineProbe
from cxrssl.data import CXRDataModule, PhantomDataModule
from cxrssl.data.phantom import Phantom, write_png
from cxrssl.evaluation import EvaluationOptions, evaluate, score_table
from cxrssl.heads import DINOHead
from cxrssl.objectives import DINOv2, Recipe
from cxrssl.schedules import Schedule
from cxrssl.views import EvalView, MultiCrop

# %% [markdown]
# ## The images
#
# Put your own folder and table here: one row an image, `path` at least; `patient_id` keeps
# patients apart, and labels (1, 0, -1 for uncertain, empty) are used by the probes alone.

# %%
work = Path(tempfile.mkdtemp())
folder = work / "images"
folder.mkdir()
phantom = Phantom(96, severity=5.0)
table = PhantomDataModule(1000, size=96, severity=5.0).index
table["path"] = [f"{number}.png" for number in range(len(table))]
for number, name in enumerate(table["path"]):
    write_png(phantom, number, folder / name)
table.to_csv(work / "index.csv", index=False)
print(pd.read_csv(work / "index.csv").head())

# %% [markdown]
# ## What the objective sees
#
# Views belong to the objective: DINOv2 sees two large crops of an image and some small ones. Look
# at them before you train for days: is enough of the chest in a crop, is the contrast still
# plausible?

# %%
seed_everything(0)
torch.set_num_threads(2)
views = MultiCrop(
    global_size=64, local_size=32, n_local=2, global_scale=(0.5, 1.0), local_scale=(0.2, 0.5)
)
sample = views(phantom.pixels(0), np.random.default_rng(0))
figure = Figure(figsize=(8, 2))
shown = [*sample["global_crops"], *sample["local_crops"]]
for axes, crop in zip(figure.subplots(1, len(shown)), shown, strict=True):
    axes.imshow(crop[0], cmap="gray")
    axes.axis("off")
figure.savefig(work / "views.png")

# %% [markdown]
# ## Training
#
# Everything is small here. For real images: `vit_small` or `vit_base` at 224 px, the published
# head (65,536 prototypes), a hundred epochs, `precision="bf16-mixed"` on a GPU;
# `examples/dinov2_folder.yaml` is that run as a config file for `cxrssl fit`.

# %%
objective = DINOv2(
    ViT("vit_tiny", img_size=64, patch_size=16, width=96, depth=4, heads=3, registers=2),
    views=views,
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
    ),
)
data = CXRDataModule(
    str(work / "index.csv"), str(folder), views=objective.views, batch_size=64, num_workers=1
)
trainer = Trainer(
    max_epochs=16,
    accelerator="cpu",
    default_root_dir=work,
    logger=False,
    callbacks=[OnlineProbe(every_n_epochs=8), Health(), EncoderFile()],
    use_distributed_sampler=False,
    enable_progress_bar=False,
    log_every_n_steps=10,
)
trainer.fit(objective, datamodule=data)
for name, value in trainer.callback_metrics.items():
    if name.startswith("loss") or "macro" in name:
        print(f"{name}: {float(value):.3f}")

# %% [markdown]
# ## What it learnt
#
# `encoder.safetensors` describes itself. Compare it with the same network untrained, on images
# that neither has seen: the difference is what pretraining is worth, and it comes with an
# interval.

# %%
encoder = load_encoder(next(work.rglob("encoder.safetensors")))
torch.manual_seed(0)
untrained = ViT("vit_tiny", img_size=64, patch_size=16, width=96, depth=4, heads=3, registers=2)
untrained.normalisation = encoder.normalisation
results = evaluate(
    {"trained": encoder, "untrained": untrained},
    data,
    EvaluationOptions(methods=["knn", "linear"], shares=[], shots=[], replicates=200),
)
print(score_table(results))

# %% [markdown]
# The first three principal components of the patch tokens as colours: patches that the encoder
# takes to be alike have like colours.

# %%
view = EvalView(image_size=64)
test = data.rows("test")["path"].head(4)
pixels = [phantom.pixels(int(Path(path).stem)) for path in test]
images = torch.stack([view(image, np.random.default_rng(0))["image"] for image in pixels])
with torch.no_grad():
    tokens = encoder(images)
shown = (images[:, 0] * view.std + view.mean).numpy()
plot_patch_pca(shown, tokens.patches.numpy(), tokens.grid).savefig(work / "patches.png")
print(f"views.png, patches.png and encoder.safetensors are in {work}")

# %% [markdown]
# # Evaluate an encoder with GLoRI
#
# A head with a query for each finding (CheXFound) on a frozen encoder, beside a linear probe:
# scores with intervals, a paired comparison, and where each query looks. A few minutes on a CPU;
# the encoder is that of the quickstart if it was run, else an untrained one.

# %%
import tempfile
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer, seed_everything

from cxrssl.analysis import compare_predictions
from cxrssl.backbones import ViT, load_encoder
from cxrssl.data import PhantomDataModule
from cxrssl.heads import GLoRI, LinearProbe
from cxrssl.tasks import Classification

# %% [markdown]
# ## Encoder, data, heads
#
# `load_encoder` takes files of this library, of timm, Hugging Face (RAD-DINO) and the official
# code. With your own images: `CXRDataModule("index.csv", "/data/radiographs", labels=[...])`.

# %%
work = Path(tempfile.mkdtemp())
seed_everything(0)
torch.set_num_threads(2)
FINDINGS = ["cardiomegaly", "effusion", "pneumothorax", "nodule", "consolidation"]
ENCODER = Path("runs/quickstart/version_0/checkpoints/encoder.safetensors")


def encoder() -> ViT:
    """Return the encoder that is evaluated."""
    if ENCODER.is_file():
        return load_encoder(ENCODER)
    torch.manual_seed(0)
    return ViT("vit_tiny", img_size=64, patch_size=16, width=96, depth=4, heads=3, registers=2)


# %% [markdown]
# ## Train both heads on the same frozen features
#
# `cache` keeps the features, so that each image is encoded once for both. Rates are tried side by
# side and chosen on the validation images; test images have no say.

# %%
HEADS = {
    "glori": partial(GLoRI, blocks=4, width=96, heads=4, hidden=192),
    "linear": partial(LinearProbe, blocks=4, pooling="both"),
}
results = {}
for name, head in HEADS.items():
    task = Classification(
        encoder(), FINDINGS, head, learning_rates=[1e-3, 1e-2], cache=str(work / "features")
    )
    data = PhantomDataModule(
        1000, size=96, severity=5.0, views=task.views, batch_size=64, num_workers=1
    )
    trainer = Trainer(
        max_epochs=15,
        accelerator="cpu",
        default_root_dir=work / name,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        log_every_n_steps=10,
    )
    trainer.fit(task, datamodule=data)
    trainer.test(task, datamodule=data, verbose=False)
    results[name] = task.results(data)
    print(f"{name}:\n{results[name].text}")

# %% [markdown]
# ## Is the difference real?
#
# Both heads saw the same test images, so they are compared on the same resamples of patients: the
# interval of the difference is what counts, not whether two intervals overlap.

# %%
tables = {name: each.tables["predictions"] for name, each in results.items()}
labels = tables["glori"].filter(like="label/").to_numpy()
first, second = (tables[name].filter(like="probability/").to_numpy() for name in HEADS)
patients = data.shown_rows("test")["patient_id"]
paired = compare_predictions(first, second, labels, FINDINGS, patients=patients)
shown = paired[paired["metric"] == "auroc"]
print(
    shown[["finding", "difference", "low", "high", "p_bootstrap"]].round(3).to_string(index=False)
)

# %% [markdown]
# ## Where does it look?
#
# GLoRI's queries have maps of attention, one for each finding. Read them with care: a map shows
# what a query gathers from, not why the answer is what it is.

# %%
for name, figure in results["glori"].figures.items():
    figure.savefig(work / f"{name}.png")
    print(work / f"{name}.png")

# %% [markdown]
# The same from the command line, with published weights and your own index:
#
# ```bash
# cxrssl fit --config examples/glori_phantom.yaml --model.encoder rad-dino/ --data CXRDataModule \
#   --data.index index.csv --data.root /data/radiographs --model.findings '[effusion, pneumothorax]'
# ```

"""What a small encoder learns from a few thousand real radiographs, before and after.

    python benchmarks/real_images.py DATA [--objective world] [--seeds 0 1 2] [--epochs 20]
    python benchmarks/real_images.py DATA --config examples/mlvicx_phantom.yaml [--model.FLAG VALUE]

DATA holds folders with a ``manifest.csv`` each: path (relative to DATA), patient_id, split (train,
val, test) and label columns. All training images of all folders are used without labels. Then, for
the pixels, the untrained and the trained encoder, a logistic regression is fitted on the images of
the train and val splits and scored on the test split; its penalty is chosen by cross-validation
grouped by patient. Rows with ``matched`` = 1 are scored by 10-fold cross-validation grouped by
patient instead, since they are few; there the unlabelled images were seen in training.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning import Trainer, seed_everything
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxrssl.backbones import ViT
from cxrssl.data import CXRDataModule
from cxrssl.heads import DINOHead, Predictor
from cxrssl.objectives import DINOv2, Objective, Recipe, WorldModel
from cxrssl.schedules import Schedule
from cxrssl.views import MultiCrop, WorldViews

PENALTIES = np.logspace(-4, 0, 5)
PIXELS = 32


def read_manifests(root: Path) -> pd.DataFrame:
    """Return one table of all manifests with the labels to be probed; absent ones are missing."""
    tables = [
        pd.read_csv(path).assign(dataset=path.parent.name)
        for path in sorted(root.glob("*/manifest.csv"))
        if "split" in pd.read_csv(path, nrows=1)
    ]
    table = pd.concat(tables, ignore_index=True)
    view = table["view"].fillna(table["projection"])
    labels = pd.DataFrame(
        {
            "abnormal": table["abnormal"].where(table["dataset"] == "nih64"),
            "pneumonia_matched": table["Pneumonia"].where(table["matched"] == 1),
            "female": table["sex"].map({"F": 1, "M": 0}),
            "ap_view": view.map({"AP": 1, "PA": 0}),
            "pneumonia_children": table["pneumonia"],
        }
    )
    return pd.concat([table[["dataset", "path", "patient_id", "split"]], labels], axis=1)


def head(dim: int) -> DINOHead:
    """Return a small prototype head."""
    return DINOHead(dim, prototypes=128, hidden=256, bottleneck=64)


def dinov2(size: int) -> DINOv2:
    """Return the quickstart's objective, a little wider."""
    backbone = ViT(
        "vit_tiny", img_size=size, patch_size=16, width=128, depth=4, heads=4, registers=2
    )
    views = MultiCrop(
        global_size=size,
        local_size=size // 2,
        n_local=2,
        global_scale=(0.5, 1.0),
        local_scale=(0.2, 0.5),
    )
    return DINOv2(
        backbone,
        views=views,
        dino_head=head,
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


def world(size: int, **ablation: Any) -> WorldModel:
    """Return the model of ``examples/world_phantom.yaml``, or an ablation of it.

    Its schedules, unlike those, reach their ends.
    """
    backbone = ViT(
        "vit_tiny",
        img_size=size,
        patch_size=8,
        width=96,
        depth=4,
        heads=3,
        class_token=False,
        position="sincos",
        init="jepa",
    )
    return WorldModel(
        backbone,
        views=WorldViews(image_size=size, patch_size=8, scale=(0.5, 1.0), min_keep=4),
        predictor=lambda dim, actions: Predictor(dim, actions, width=48, depth=3, heads=3),
        momentum=Schedule(0.99, final=1.0),
        recipe=Recipe(
            lr=Schedule(1e-3, final=1e-6, warmup=0.1),
            lr_scaling="none",
            weight_decay=Schedule(0.05),
            layer_decay=1.0,
            patch_embed_lr=1.0,
            freeze_last_layer=0.0,
            clip=1.0,
        ),
        **ablation,
    )


OBJECTIVES: dict[str, Callable[[int], Objective]] = {
    "dinov2": dinov2,
    "world": world,
    "world-local": partial(world, domain="off", weights={"global": 0.0}),
    "world-local-global": partial(world, domain="off"),
    "world-local-domain": partial(world, weights={"global": 0.0}),
}


def of_config(file: Path, flags: list[str]) -> Objective:
    """Return the model of a config file, changed by flags as the command takes them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Objective, "model")
    model = yaml.safe_load(file.read_text())["model"]
    given = parser.parse_args([f"--model={json.dumps(model)}", *flags])
    objective: Objective = parser.instantiate(given).model
    return objective


def encoder_features(objective: Objective, images: torch.Tensor) -> NDArray[np.float32]:
    """Return class token and mean patch token of images (n, 1, H, W), (n, D) or (n, 2 D)."""
    return torch.cat([objective.embed(c, pooling="both") for c in images.split(256)]).numpy()


def all_images(data: CXRDataModule) -> torch.Tensor:
    """Return the evaluation view of every image, in the order of the index."""
    batches = list(data.predict_dataloader())
    order = torch.cat([batch["image_number"] for batch in batches]).argsort()
    return torch.cat([batch["image"] for batch in batches])[order]


def classifier(folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> object:
    """Return a logistic regression whose penalty is chosen over the folds."""
    model = LogisticRegressionCV(
        Cs=PENALTIES, cv=folds, scoring="roc_auc", max_iter=100, class_weight="balanced"
    )
    return make_pipeline(StandardScaler(), model)


def fit_score(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    groups: NDArray[np.object_],
    new: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return scores of new rows from a classifier fitted to the others."""
    folds = list(GroupKFold(5).split(x, y, groups))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on convergence at weak penalties
        return classifier(folds).fit(x, y).decision_function(new)


def probe(features: NDArray[np.float32], index: pd.DataFrame) -> dict[str, float]:
    """Return the AUROC of each label."""
    groups = index["patient_id"].fillna(index["path"]).astype(object).to_numpy()
    result = {}
    for label in ("pneumonia_matched", "abnormal", "female", "ap_view", "pneumonia_children"):
        rows = np.flatnonzero(index[label].isin([0, 1]))
        x, y, g = features[rows], index[label].to_numpy()[rows].astype(int), groups[rows]
        if label == "pneumonia_matched":
            scores = np.empty(len(rows))
            for train, test in GroupKFold(10).split(x, y, g):
                scores[test] = fit_score(x[train], y[train], g[train], x[test])
            result[label] = float(roc_auc_score(y, scores))
            continue
        split = index["split"].astype(object).to_numpy()[rows]
        held_out = "test" if (split == "test").any() else "val"
        test = split == held_out
        train = (split == "train") | ((split == "val") & (held_out == "test"))
        scores = fit_score(x[train], y[train], g[train], x[test])
        result[label] = float(roc_auc_score(y[test], scores))
    return result


def main() -> None:
    """Train and probe for each seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--objective", choices=list(OBJECTIVES), default="dinov2")
    parser.add_argument("--config", type=Path, help="take the model of this file instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for a JSON file a seed")
    parser.add_argument("--no-pixels", action="store_true", help="leave out the pixels' probe")
    options, flags = parser.parse_known_args()
    if flags and options.config is None:
        parser.error(f"only a --config takes further flags: {' '.join(flags)}")
    name = options.objective if options.config is None else options.config.stem

    table = read_manifests(options.data)
    index_file = Path("runs/real_images/index.csv")
    index_file.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(index_file, index=False)
    for seed in options.seeds:
        seed_everything(seed, verbose=False)
        if options.config is None:
            objective = OBJECTIVES[options.objective](options.size)
        else:
            objective = of_config(options.config, flags)
        data = CXRDataModule(
            str(index_file),
            root=str(options.data),
            views=objective.views,
            batch_size=options.batch,
            num_workers=options.workers,
        )
        data.setup("fit")
        images = all_images(data)
        if seed == options.seeds[0] and not options.no_pixels:  # the same for every seed
            small = torch.nn.functional.interpolate(images, PIXELS, mode="area")
            pixels = probe(small.flatten(1).numpy(), data.index)
            print(f"pixels: {json.dumps(pixels)}", flush=True)
        result = {"untrained": probe(encoder_features(objective, images), data.index)}
        start = time.perf_counter()
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=options.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            limit_val_batches=0,
        )
        trainer.fit(objective, datamodule=data)
        result["minutes"] = {"all": (time.perf_counter() - start) / 60}
        result["trained"] = probe(encoder_features(objective, images), data.index)
        print(f"seed {seed}: {json.dumps(result)}", flush=True)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{name}_seed{seed}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()

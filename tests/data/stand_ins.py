"""Small images, views, a data module and a model that records what it is shown."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.views.base import Views


class DrawViews(Views):
    """A sample is the first pixel and a draw; a batch has a draw of its own."""

    def __init__(self):
        super().__init__(image_size=8)

    def __call__(self, image, rng):
        return {"view": torch.tensor([float(image[0, 0]), rng.random()], dtype=torch.float64)}

    def collate(self, samples, rng):
        draw = torch.tensor(rng.random(), dtype=torch.float64)
        return super().collate(samples, rng) | {"draw": draw}


def write_images(folder: Path, n: int, corrupt: tuple[int, ...] = ()) -> list[str]:
    """Write n images of 8 x 8 pixels; all pixels of image i are i."""
    paths = [str(folder / f"{i:03d}.png") for i in range(n)]
    for i, path in enumerate(paths):
        cv2.imwrite(path, np.full((8, 8), i, np.uint8))
        if i in corrupt:
            Path(path).write_bytes(b"\x89PNG\r\n\x1a\n but nothing else")
    return paths


def write_index(
    folder: Path, n: int = 48, splits: tuple[int, int] = (40, 6), corrupt: tuple[int, ...] = ()
) -> str:
    """Write n images and their index: the first splits[0] train, then splits[1] val, then test."""
    paths = write_images(folder, n, corrupt)
    names = np.repeat(["train", "val", "test"], [*splits, n - sum(splits)])
    labels = np.arange(n) % 2
    frame = pd.DataFrame({"path": paths, "split": names, "nodule": labels, "edema": 1 - labels})
    frame.loc[0, ["nodule", "edema"]] = np.nan
    frame.to_csv(folder / "index.csv", index=False)
    return str(folder / "index.csv")


class Recorder(LightningModule):
    """Keeps every training batch: counters of the trainer, and all draws."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.shown = []
        self.validated = []

    def training_step(self, batch, batch_idx):
        assert "failures" not in batch
        counters = (self.current_epoch, batch_idx, self.global_step)
        draws = (batch["image_number"].tolist(), batch["view"].tolist(), batch["draw"].item())
        self.shown.append((counters, draws))
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append((batch["image_number"].tolist(), batch["view"].tolist()))

    def predict_step(self, batch, batch_idx):
        return batch["image_number"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def quiet_trainer(**options) -> Trainer:
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "max_epochs": 3,
    }
    return Trainer(**(defaults | options))


def data_module(index: str, **options) -> CXRDataModule:
    defaults = {"views": DrawViews(), "batch_size": 4, "num_workers": 0, "seed": 5}
    return CXRDataModule(index, **(defaults | options))

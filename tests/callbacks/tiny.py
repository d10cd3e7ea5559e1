"""A tiny objective and data module that keep the contracts the callbacks rely on."""

from types import SimpleNamespace

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError

FINDINGS = ["Edema", "Pleural Effusion"]


class Encoder(nn.Module):
    """Patches of 4 x 4 pixels of images (B, 1, 8, 8) through one layer and dropout."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 6)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        patches = x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(x), 4, 16)
        patches = self.dropout(self.layer(patches))
        return Tokens(None, patches[:, :0], patches, (2, 2))


class TinyObjective(LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.frozen = nn.BatchNorm1d(3).eval()  # a module with a mode of its own
        self.views = SimpleNamespace(mean=0.5, std=0.25)
        self.prototypes = {"": 16}
        self.monitored = {}

    def embed(self, images, pooling="class"):
        self.encoder.eval()
        features = self.encoder(images).patches.mean(1)
        self.encoder.train()
        return features

    def describe(self):
        return {"objective": "TinyObjective", "image_size": 8}

    def training_step(self, batch, batch_idx):
        loss = self.encoder(batch["image"]).patches.square().mean()
        self.monitored = {"teacher_entropy": torch.tensor(1.0)}
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        pass

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class TinyData(LightningDataModule):
    """Images whose brightness tells both findings; split and labels as asked for."""

    def __init__(self, n=16, labels=FINDINGS, splits=("train", "val", "test")):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        present = (torch.arange(n) % 2).float()
        self.images = torch.randn(n, 1, 8, 8, generator=generator) + present[:, None, None, None]
        self.targets = torch.stack([present, 1 - present], dim=1)
        self.labels = list(labels)
        self.splits = splits

    def _loader(self):
        numbers = torch.arange(len(self.images))
        rows = zip(self.images, self.targets, numbers, strict=True)
        names = ("image", "labels", "image_number")
        return DataLoader([dict(zip(names, row, strict=True)) for row in rows], batch_size=4)

    def train_dataloader(self):
        return self._loader()

    val_dataloader = test_dataloader = train_dataloader

    def probe_dataloader(self, split, shard=(0, 1)):
        if split not in self.splits or not self.labels:
            raise InputError(f"the split {split!r} has no labelled image to probe")
        return self._loader()


class MemoryLogger(DummyLogger):
    """Keeps what is logged as (step, name, value)."""

    def __init__(self):
        super().__init__()
        self.points = []

    def log_metrics(self, metrics, step=None):
        self.points += [(step, name, value) for name, value in metrics.items()]

    def steps(self, name):
        return [step for step, logged, _ in self.points if logged == name]


def train(objective, data, callbacks, folder, **options):
    """Fit on the CPU and return the trainer."""
    settings = {"max_epochs": 2, "logger": False, "enable_checkpointing": False} | options
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=callbacks,
        enable_model_summary=False,
        limit_val_batches=0,
        log_every_n_steps=settings.pop("log_every_n_steps", 1),
        enable_progress_bar=settings.pop("enable_progress_bar", False),
        **settings,
    )
    trainer.fit(objective, data, ckpt_path=None)
    return trainer

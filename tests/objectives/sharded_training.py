"""Training by Lightning in one process, and sharded over two as torchrun would start them."""

import os
import warnings

import torch
from lightning import LightningDataModule
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils._pytree import tree_map

from cxrssl.objectives.sharding import whole
from tests.objectives.training import loader, quiet_trainer
from tests.objectives.two_processes import synchronise


class Shares(LightningDataModule):
    """One batch an epoch, in micro-batches of which each process has its share."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def train_dataloader(self):
        rank, n = self.trainer.global_rank, self.trainer.world_size
        micro = self.trainer.accumulate_grad_batches
        batch = self.batches[self.trainer.current_epoch]
        parts = (lambda value, i=i: value.chunk(micro)[i].chunk(n)[rank] for i in range(micro))
        return loader([tree_map(part, batch) for part in parts])


class Record(Callback):
    """Keeps loss and gradients of each step; saves the run after the first one."""

    def __init__(self, path):
        self.path, self.losses, self.gradients, self.part = path, [], {}, 1.0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        step = trainer.global_step
        named = [(n, p) for n, p in pl_module.named_parameters() if p.grad is not None]
        self.gradients |= {f"{name}, step {step}": whole(p.grad).clone() for name, p in named}
        held = sum(getattr(p, "to_local", lambda p=p: p)().numel() for _, p in named)
        self.part = held / sum(p.numel() for _, p in named)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(trainer.callback_metrics["loss"])

    def on_train_epoch_end(self, trainer, pl_module):
        if self.path is not None and trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


def fit(objective, batches, path=None, ckpt_path=None, callbacks=(), **options):
    """Train, and return losses, gradients, share of the weights held, and final state."""
    record = Record(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about plain tensors where Lightning knows no data module
        trainer = quiet_trainer(
            max_epochs=len(batches),
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            callbacks=[record, *callbacks],
            **options,
        )
        trainer.fit(objective, datamodule=Shares(batches), ckpt_path=ckpt_path)
    return {
        "losses": torch.stack(record.losses),
        "gradients": record.gradients,
        "part": record.part,
        "state": {n: whole(value).clone() for n, value in objective.state_dict().items()},
        "skipped": objective._nonfinite.total,
    }


def fit_share(rank, objective, batches, path=None, **options):
    """Train on this process's share of each batch and of the weights."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    here |= {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in here.items()})
    nn.SyncBatchNorm.convert_sync_batchnorm = synchronise  # torch's own works on GPUs only
    defaults = {"devices": 2, "strategy": "fully_sharded", "sync_batchnorm": True}
    return fit(objective, batches, path, **(defaults | options))

"""Training by Lightning in two processes."""

import warnings
from functools import partial

import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch.callbacks import Callback

from tests.objectives.jepa_training import small_world, world_batches
from tests.objectives.training import crops, loader, quiet_trainer, small_objective

STEPS, SPOILT = 4, 1


class TwoShares(LightningDataModule):
    """Other batches for each process; on the second one, a batch that is not finite."""

    batch_size = 4

    def __init__(self, batches, key):
        super().__init__()
        self.batches, self.key = batches, key

    def train_dataloader(self):
        rank = self.trainer.global_rank
        batches = self.batches(STEPS, seed=rank)
        if rank == 1:
            batches[SPOILT][self.key][0] = torch.nan
        return loader(batches)


class Report(Callback):
    """Writes what each process ended with."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        content = {
            "steps": trainer.global_step,
            "skipped": pl_module._nonfinite.total,
            "state": pl_module.state_dict(),
            "loss": trainer.callback_metrics["loss"],
        }
        torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


@pytest.mark.parametrize(
    ("make", "batches", "key"),
    [
        (partial(small_objective, drop_path=0.0), crops, "global_crops"),
        (small_world, world_batches, "context"),
    ],
    ids=["DINOv2", "WorldModel"],
)
def test_a_batch_that_is_not_finite_on_one_process_is_skipped_on_all(tmp_path, make, batches, key):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about starting processes; each skips and says so itself
        trainer = quiet_trainer(
            strategy="ddp_spawn",
            devices=2,
            use_distributed_sampler=False,
            callbacks=[Report(tmp_path)],
        )
        trainer.fit(make(), datamodule=TwoShares(batches, key))
    first, second = (
        torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)
    )
    for result in (first, second):
        assert result["steps"] == STEPS
        assert result["skipped"] == 1
    assert first["loss"] == second["loss"]
    for name, value in first["state"].items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, second["state"][name]), name

"""Training by Lightning in two processes."""

import warnings

import torch
from lightning import LightningDataModule
from lightning.pytorch.callbacks import Callback

from tests.objectives.training import crops, loader, quiet_trainer, small_objective

STEPS, SPOILT = 4, 1


class TwoShares(LightningDataModule):
    """Other batches for each process; on the second one, a batch that is not finite."""

    batch_size = 4

    def train_dataloader(self):
        rank = self.trainer.global_rank
        batches = crops(STEPS, seed=rank)
        if rank == 1:
            batches[SPOILT]["global_crops"][0] = torch.nan
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


def test_a_batch_that_is_not_finite_on_one_process_is_skipped_on_all(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about starting processes; each skips and says so itself
        trainer = quiet_trainer(
            strategy="ddp_spawn",
            devices=2,
            use_distributed_sampler=False,
            callbacks=[Report(tmp_path)],
        )
        trainer.fit(small_objective(drop_path=0.0), datamodule=TwoShares())
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

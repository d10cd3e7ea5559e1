"""What a task predicts for every image of an index, as a table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from cxrssl.callbacks.messages import tell
from cxrssl.callbacks.rank_file import rank_file
from cxrssl.tasks import Task

__all__ = ["PredictionFile"]


class PredictionFile(BasePredictionWriter):
    """Writes ``predictions.parquet`` into the run's folder at the end of ``trainer.predict``.

    One row an image, in the order of the index: its path and what the task names its predictions,
    NaN for an image that could not be read. Several processes write
    ``predictions_rank<r>.parquet`` each.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write what this process has predicted."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, Task) or datamodule is None:
            return
        path = rank_file(trainer, "predictions")
        if not predictions:
            return  # more processes than batches
        table = pd.concat(
            [pd.DataFrame(pl_module.name_predictions(batch)) for batch in predictions]
        ).sort_values("image_number")
        paths = datamodule.index["path"].iloc[table["image_number"]].to_numpy()
        table.insert(0, "path", paths)
        table.drop(columns="image_number").to_parquet(path, index=False)
        tell(f"Predictions: {path}")

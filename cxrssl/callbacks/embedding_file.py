"""The embeddings that ``trainer.predict`` makes, as a table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from cxrssl.callbacks.messages import tell
from cxrssl.callbacks.rank_file import rank_file

__all__ = ["EmbeddingFile"]


class EmbeddingFile(BasePredictionWriter):
    """Writes ``embeddings.parquet`` into the run's folder at the end of ``trainer.predict``.

    One row an image, in the order of the index: the columns of the data module's index and
    ``embedding``, a list of D numbers, NaN for an image that could not be read. Several processes
    write ``embeddings_rank<r>.parquet`` each.
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
        """Write what this process has embedded."""
        path = rank_file(trainer, "embeddings")
        if not predictions:
            return  # more processes than batches
        numbers = torch.cat([batch["image_number"] for batch in predictions]).cpu()
        vectors = torch.cat([batch["embedding"] for batch in predictions]).float().cpu()
        order = numbers.argsort()
        index = getattr(getattr(trainer, "datamodule", None), "index", None)
        chosen = numbers[order].numpy()
        table = pd.DataFrame({"image_number": chosen}) if index is None else index.iloc[chosen]
        table = table.assign(embedding=list(vectors[order].numpy()))
        table.to_parquet(path)
        tell(f"Embeddings: {path}")

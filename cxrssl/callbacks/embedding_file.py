"""The embeddings that ``trainer.predict`` makes, as a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from cxrssl.callbacks.messages import tell

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
        numbers = torch.cat([batch["image_number"] for batch in predictions]).cpu()
        vectors = torch.cat([batch["embedding"] for batch in predictions]).float().cpu()
        order = numbers.argsort()
        index = getattr(getattr(trainer, "datamodule", None), "index", None)
        chosen = numbers[order].numpy()
        table = pd.DataFrame({"image_number": chosen}) if index is None else index.iloc[chosen]
        table = table.assign(embedding=list(vectors[order].numpy()))
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"embeddings_rank{trainer.global_rank}" if trainer.world_size > 1 else "embeddings"
        table.to_parquet(folder / f"{name}.parquet")
        tell(f"Embeddings: {folder / name}.parquet")

"""Tables and figures of a task's test, in the run's folder."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from cxrssl.callbacks.messages import tell
from cxrssl.tasks import Task
from cxrssl.tasks.results import Results

__all__ = ["TaskReport", "write_results"]


class TaskReport(Callback):
    """Writes what a task predicted in ``trainer.test``, its scores with intervals, and figures.

    Each table is a Parquet file, ``scores`` a JSON file too; each figure is a PNG. The scores are
    also printed. Files name images by their paths and hold no patient.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the results of a task."""
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, Task) or datamodule is None:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # on all processes
        if not trainer.is_global_zero:
            return
        results = pl_module.results(datamodule)
        tell(results.text)
        tell(f"Results: {', '.join(map(str, write_results(results, folder)))}")


def write_results(results: Results, folder: Path) -> list[Path]:
    """Write tables and figures into a folder and return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, table in results.tables.items():
        written.append(folder / f"{name}.parquet")
        table.reset_index(drop=True).to_parquet(written[-1])
    if "scores" in results.tables:
        written.append(folder / "scores.json")
        results.tables["scores"].to_json(written[-1], orient="records", indent=1)
    for name, figure in results.figures.items():
        written.append(folder / f"{name}.png")
        figure.savefig(written[-1])
    return written

"""Where a process writes its rows of a table."""

from pathlib import Path

from lightning import Trainer

__all__ = ["rank_file"]


def rank_file(trainer: Trainer, name: str) -> Path:
    """Return a Parquet file in the run's folder, which is made; call it on all processes.

    Args:
        trainer: The trainer of the run.
        name: Name of the table; of several processes each has its number behind it.
    """
    folder = Path(trainer.log_dir or trainer.default_root_dir)  # takes all processes
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
    return folder / f"{name}{suffix}.parquet"

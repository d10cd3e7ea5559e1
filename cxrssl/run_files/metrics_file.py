"""The table of what a run has logged."""

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from cxrssl.run_files.whole_file import written_whole

__all__ = ["MetricsFile"]


class MetricsFile(CSVLogger):
    """Lightning's ``metrics.csv``, none of whose lines a kill can cost.

    When a value is logged for the first time the table gets another column and is written anew:
    Lightning empties the file for that, and a kill would leave it empty.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Return the writer of the table."""
        if self._experiment is None:
            self._experiment = _WholeTable(log_dir=self.log_dir)
        return self._experiment


class _WholeTable(ExperimentWriter):
    """A table that is rewritten beside itself."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        if "://" in self.metrics_file_path:
            super()._rewrite_with_new_header(fieldnames)
            return
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with written_whole(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(rows)

"""Whether a long run grows: memory, open files and threads over thousands of steps.

    python benchmarks/long_run.py [--steps 2000] [--every 100] [--only DINOv2]

Runs the command on examples with small batches, with everything a run has by default (probes,
health, validation, checkpoints, figures, CSV and TensorBoard), each in processes of its own, and
reads Linux's `/proc` every so many steps. Prints the curve and, after a warm-up of a quarter of the
run, the least-squares slope per 1,000 steps with its standard error.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
CASES = {"DINOv2": "quickstart.yaml", "Joint": "joint_dinov2_mlvicx.yaml"}
COLUMNS = {
    "step": "step",
    "main": "main process, MB",
    "workers": "workers, MB",
    "files": "open files",
    "threads": "threads",
}
WARM_UP = 0.25

Curve = dict[str, NDArray[np.float64]]


class Notes(Callback):
    """Writes what the process and its children hold to a table, every so many steps.

    Args:
        path: The table, CSV.
        every: Optimiser steps between two rows.
    """

    def __init__(self, path: str, every: int) -> None:
        self.path, self.every = Path(path), every

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the table."""
        self._write(list(COLUMNS))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Add a row where it is due."""
        if trainer.global_step % self.every == 0:
            own = Path("/proc/self")
            children = (own / "task" / str(os.getpid()) / "children").read_text().split()
            workers = sum(resident(Path("/proc") / child) for child in children)
            files, threads = len(list((own / "fd").iterdir())), len(list((own / "task").iterdir()))
            self._write([trainer.global_step, resident(own), workers, files, threads])

    def _write(self, row: list[Any]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)


def resident(process: Path) -> float:
    """Return the resident memory of a process in MB, 0 where it has just ended."""
    try:
        pages = int((process / "statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(example: str, steps: int, every: int, flags: list[str]) -> Curve:
    """Train in a process of its own and return the columns of its table."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "long_run.csv"
        command = [sys.executable, "-m", "cxrssl", "fit", f"--config={ROOT / 'examples' / example}"]
        command += [f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
        command += [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1"]
        command += ["--trainer.callbacks=OnlineProbe", f"--trainer.callbacks.every_n_steps={every}"]
        command += ["--trainer.callbacks+=long_run.Notes", f"--trainer.callbacks.path={table}"]
        command += [f"--trainer.callbacks.every={every}", "--trainer.enable_progress_bar=false"]
        command += ["--data.n_images=800", "--data.batch_size=8", "--data.num_workers=2", *flags]
        paths = [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
        with table.open() as file:
            rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS}


def slope(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the least-squares slope per 1,000 steps after the warm-up, and its standard error."""
    late = steps > WARM_UP * steps[-1]
    x, y = steps[late] / 1000, values[late]
    centred = x - x.mean()
    spread = np.square(centred).sum()
    found = centred @ y / spread
    rest = y - y.mean() - found * centred
    return float(found), float(np.sqrt(np.square(rest).sum() / (len(x) - 2) / spread))


def main() -> None:
    """Run every case and print its curve and slopes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for the command")
    options = parser.parse_args()
    for case in options.only:
        curve = run(CASES[case], options.steps, options.every, options.flags)
        print(f"\n{case}\n\n| {' | '.join(COLUMNS.values())} |\n{'|---' * len(COLUMNS)}|")
        for row in zip(*curve.values(), strict=True):
            print(f"| {' | '.join(f'{value:,.0f}' for value in row)} |")
        for name in list(COLUMNS)[1:]:
            found, error = slope(curve["step"], curve[name])
            print(f"{COLUMNS[name]}: {found:+.2f} +- {error:.2f} per 1,000 steps")


if __name__ == "__main__":
    main()

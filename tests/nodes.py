"""Small runs of the command by one process, or by two that stand for two nodes."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from lightning.pytorch.callbacks import Callback

from cxrssl.analysis import RidgeProbe

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "seed_everything": 3,
    "model": {
        "class_path": "DINOv2",
        "init_args": {
            "backbone": {
                "class_path": "ViT",
                "init_args": {
                    "name": "vit_tiny",
                    "img_size": 32,
                    "width": 32,
                    "depth": 2,
                    "heads": 2,
                    "drop_path": 0.3,
                },
            },
            "views": {
                "class_path": "MultiCrop",
                "init_args": {"global_size": 32, "local_size": 16, "n_local": 2},
            },
            "dino_head": {
                "class_path": "DINOHead",
                "init_args": {"prototypes": 16, "hidden": 16, "bottleneck": 8},
            },
        },
    },
    "data": {
        "class_path": "PhantomDataModule",
        "init_args": {"n_images": 60, "size": 48, "num_workers": 0, "split": [0.7, 0.3, 0.0]},
    },
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": -1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    },
}
"""36 training images."""


class Notes(Callback):
    """Writes, for each process, what it was shown, what it drew, and how many probes it fitted.

    Args:
        folder: One file a process, ``rank0.jsonl`` and so on.
        stop_at: A step after which the second process is lost.
        how: ``hang``, ``kill`` or ``fail``.
    """

    def __init__(self, folder: str, stop_at: int = -1, how: str = "hang") -> None:
        self.folder, self.stop_at, self.how = Path(folder), stop_at, how
        self.fits = self.begun = 0

    def on_fit_start(self, trainer, pl_module):
        plain = RidgeProbe.fit

        def fit(probe, *arguments, **options):
            self.fits += 1
            return plain(probe, *arguments, **options)

        RidgeProbe.fit = fit

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.begun = trainer.global_step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        # Where the generator of dropped residuals stands after the micro-batch.
        drawn = int(torch.random.get_rng_state().sum())
        images = batch["image_number"].tolist()
        self.write(trainer, {"begun": self.begun, "images": images, "drawn": drawn})
        if trainer.global_step == self.stop_at and trainer.global_rank == 1:
            if self.how == "fail":
                raise RuntimeError("the second process has failed")
            # As a machine that has lost its network, or has been ended, looks to the others.
            os.kill(os.getpid(), {"hang": signal.SIGSTOP, "kill": signal.SIGKILL}[self.how])

    def on_train_end(self, trainer, pl_module):
        self.write(trainer, {"fits": self.fits, "log_dir": trainer.log_dir})

    def write(self, trainer, row):
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(folder: Path, notes: str, *flags: str, **stop: object) -> list[str]:
    """Return a run of the small config below a folder, with notes in a folder of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(TINY))
    arguments = [sys.executable, "-m", "cxrssl", "fit", f"--config={config}"]
    arguments += [f"--trainer.default_root_dir={folder}"]
    arguments += ["--trainer.callbacks+=tests.nodes.Notes"]
    arguments += [f"--trainer.callbacks.folder={folder / notes}"]
    arguments += [f"--trainer.callbacks.{name}={value}" for name, value in stop.items()]
    return arguments + list(flags)


def start(arguments: list[str], **environment: object) -> subprocess.Popen[str]:
    """Start a process in the repository's folder."""
    variables = {"OMP_NUM_THREADS": 1, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ROOT}
    variables |= environment
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(arguments: list[str]) -> list[subprocess.Popen[str]]:
    """Start one process on each of two nodes, as a user would without a queue."""
    port = free_port()
    arguments = [*arguments, "--trainer.num_nodes=2", "--trainer.devices=1"]
    return [
        start(arguments, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, NODE_RANK=rank, LOCAL_RANK=0)
        for rank in range(2)
    ]


def ended(process: subprocess.Popen[str], seconds: float = 300) -> tuple[int, str]:
    """Wait for a process; return its exit code and all it said."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out + err


def notes(folder: Path, rank: int = 0) -> list[dict[str, object]]:
    """Return what a process has written."""
    return [json.loads(line) for line in (folder / f"rank{rank}.jsonl").read_text().splitlines()]

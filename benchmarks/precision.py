"""How far the losses of bfloat16 are from float32's after a few steps of the same seed.

    python benchmarks/precision.py [--steps 5] [--batch 8] [--only DINOv2]

The models of the examples are trained on generated radiographs on the CPU, with their own recipes.
Prints, for each objective and loss, the largest relative difference over the steps.
"""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from real_images import of_config
from torch.utils.data import DataLoader

from cxrssl.data.phantom import Phantom
from cxrssl.objectives import Objective

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
CASES = {
    "DINOv2, softmax": ("quickstart.yaml", ["--model.centering=softmax"]),
    "DINOv2, Sinkhorn": ("quickstart.yaml", ["--model.centering=sinkhorn"]),
    "WorldModel": ("world_phantom.yaml", []),
    "IJEPA": ("ijepa_phantom.yaml", []),
    "MLVICX": ("mlvicx_phantom.yaml", []),
    "VICReg": ("vicreg_phantom.yaml", []),
    "LeJEPA": ("lejepa_phantom.yaml", []),
    "Joint": ("joint_dinov2_mlvicx.yaml", []),
}
PRECISIONS = ("bf16-mixed", "bf16-true")
FLOOR = 0.01
"""Differences of smaller losses are relative to it."""

Losses = dict[str, float]


class Notes(Callback):
    """Keeps every loss after every step."""

    def __init__(self) -> None:
        self.steps: list[Losses] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Note the losses of the step."""
        metrics = trainer.callback_metrics
        self.steps.append({k: float(v) for k, v in metrics.items() if k.startswith("loss")})


def batches(objective: Objective, n: int, size: int) -> list[dict[str, Any]]:
    """Return batches that the objective's views make of phantoms."""
    views, phantom, rng = objective.views, Phantom(96), np.random.default_rng(0)
    samples = [views(phantom.pixels(number), rng) for number in range(n * size)]
    return [views.collate(samples[i : i + size], rng) for i in range(0, n * size, size)]


def trained(case: str, precision: Any, steps: int, batch: int) -> list[Losses]:
    """Return the losses after each step."""
    file, flags = CASES[case]
    seed_everything(0, verbose=False)
    objective, notes = of_config(EXAMPLES / file, flags), Notes()
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=steps,
        log_every_n_steps=1,
        callbacks=[notes],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(objective, DataLoader(batches(objective, steps, batch), batch_size=None))  # type: ignore[arg-type]
    return notes.steps


def difference(exact: list[Losses], found: list[Losses], term: str) -> float:
    """Return the largest relative difference of a loss over the steps."""
    pairs = [(e[term], f[term]) for e, f in zip(exact, found, strict=True)]
    return max(abs(f - e) / max(abs(e), FLOOR) for e, f in pairs)


def main() -> None:
    """Train every case in every precision and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print(f"| objective | loss | 32-true at step {options.steps} | {' | '.join(PRECISIONS)} |")
    print("|---" * (3 + len(PRECISIONS)) + "|")
    for case in options.only:
        exact, *others = (
            trained(case, precision, options.steps, options.batch)
            for precision in ("32-true", *PRECISIONS)
        )
        for term, value in exact[-1].items():
            cells = [f"{difference(exact, found, term):.1%}" for found in others]
            name = term.removeprefix("loss/")
            print(f"| {case} | {name} | {value:.3f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

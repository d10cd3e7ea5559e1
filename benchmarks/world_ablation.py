"""The ablation table of the world model on generated radiographs, from the command's flags alone.

    python benchmarks/world_ablation.py [--seeds 0 1 2] [--epochs 16] [--variants local all]

Each variant is ``cxrssl fit --config examples/world_phantom.yaml`` with other flags; then
``cxrssl test`` measures what the model knows of domain, layout and local anatomy. Prints the probes
before and after training, and the recall of the right candidate, for every seed.
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import pandas as pd

CONFIG = Path(__file__).resolve().parents[1] / "examples" / "world_phantom.yaml"
VARIANTS = {
    "local": ["--model.domain=off", "--model.weights.global=0"],
    "local + global": ["--model.domain=off"],
    "local + domain": ["--model.weights.global=0"],
    "all": [],
    "not unified": ["--model.domain=separate"],
    "all, action not told": ["--model.action=false"],
    "all, offset not told": ["--model.offset=false"],
    "all, residual action": ["--model.predictor.conditioning=residual"],
}
MAIN = ["local", "local + global", "local + domain", "all", "all, residual action"]
PROBES = {"linear": "probe/linear/auroc/macro", "kNN": "probe/knn/auroc/macro"}


def command(verb: str, folder: Path, *flags: str) -> None:
    """Run ``cxrssl`` on one core."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cxrssl", verb, "--config", str(CONFIG)),
            f"--trainer.default_root_dir={folder}",
            "--trainer.enable_progress_bar=false",
            "--data.num_workers=0",
            *flags,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"cxrssl {verb} in {folder} failed:\n{done.stderr[-2000:]}")


def probes(folder: Path) -> dict[str, tuple[float, float]]:
    """Return each probe's AUROC before the first and after the last step."""
    with (folder / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name, column in PROBES.items():
        values = [float(row[column]) for row in rows if row.get(column)]
        found[name] = values[0], values[-1]
    return found


def world_measures(folder: Path) -> str:
    """Return recall, retrieval and chance of the newest test, in words."""
    newest = max(folder.glob("version_*/world.csv"), key=lambda path: path.stat().st_mtime)
    table = pd.read_csv(newest)
    chosen = table[table["measure"].isin(["recall@1", "recall@5", "top-1"])]
    return "; ".join(
        f"{row.task} {row.condition} {row.measure} {row.value:.3f} (chance {row.chance:.3f})"
        for row in chosen.itertuples()
    )


def main() -> None:
    """Train, test and print a line for each variant and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=MAIN)
    parser.add_argument("--out", type=Path, default=Path("runs/world_ablation"))
    options = parser.parse_args()
    for seed in options.seeds:
        for variant in options.variants:
            folder = options.out / f"{variant.replace(' ', '_')}_{seed}"
            if folder.exists():
                sys.exit(f"{folder} is there already: remove it or choose another --out")
            flags = [f"--seed_everything={seed}", *VARIANTS[variant]]
            command("fit", folder, f"--trainer.max_epochs={options.epochs}", *flags)
            command("test", folder, "--ckpt_path=last", *flags)
            scores = ", ".join(
                f"{name} {before:.3f} -> {after:.3f}"
                for name, (before, after) in probes(folder).items()
            )
            print(f"{variant}, seed {seed}: {scores}. {world_measures(folder)}", flush=True)


if __name__ == "__main__":
    main()

"""What heads, decoders and fine-tuning make of one encoder on a few hundred real radiographs.

    python benchmarks/downstream.py DATA [--encoder FILE] [--out runs/downstream]

DATA is what ``real_images.py`` takes. Without an encoder, LeJEPA pretrains one on all training
images, without labels. Every run below is one of the command ``cxrssl``: heads on the frozen
encoder, fine-tuning, kNN and logistic regression on the test split, with intervals over patients;
decoders on the images with lung masks; and one head with cached features and without.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from real_images import read_manifests

from cxrssl.__main__ import main as cxrssl

FINDINGS = ["abnormal", "female", "ap_view"]
HEADS: dict[str, dict[str, Any]] = {
    "LinearProbe": {"blocks": 4, "pooling": "both"},
    "AttentiveProbe": {"heads": 4},
    "GLoRI": {"blocks": 4, "width": 96, "heads": 4, "hidden": 192},
}
DECODERS: dict[str, dict[str, Any]] = {
    "LinearDecoder": {"blocks": 4},
    "ViTDetDecoder": {"channels": 64},
    "UPerNetDecoder": {"channels": 64},
    "UNetDecoder": {"width": 8},
}
RATES = [1e-4, 1e-3, 1e-2]
MILD = {
    "image_size": 64,
    "scale": [0.9, 1.0],
    "degrees": 5.0,
    "translate": 0.02,
    "zoom": [0.95, 1.05],
}


def write_indices(root: Path, out: Path) -> tuple[Path, Path]:
    """Write an index of all images with labels, and one of those with lung masks."""
    table = read_manifests(root)
    labelled = table[["dataset", "path", "patient_id", "split", *FINDINGS]]
    all_images = out / "index.csv"
    labelled.to_csv(all_images, index=False)
    masks = pd.concat(
        pd.read_csv(path) for path in root.glob("*/manifest.csv") if "mask_path" in _columns(path)
    )
    masks = masks[masks["mask_path"].notna()]
    chosen = masks.rename(columns={"mask_path": "mask/lungs"})
    lungs = out / "lungs.csv"
    chosen[["path", "patient_id", "split", "mask/lungs"]].to_csv(lungs, index=False)
    return all_images, lungs


def _columns(path: Path) -> list[str]:
    return list(pd.read_csv(path, nrows=1).columns)


def pretrain(root: Path, index: Path, out: Path, epochs: int) -> Path:
    """Pretrain a small encoder on all training images, and return its file."""
    example = Path(__file__).resolve().parents[1] / "examples" / "lejepa_phantom.yaml"
    config = yaml.safe_load(example.read_text())
    config["model"]["init_args"]["backbone"]["init_args"]["patch_size"] = 8
    config["model"]["init_args"]["views"]["init_args"]["patch_size"] = 8
    config["data"] = data(root, index, 64)
    config["trainer"] |= {"max_epochs": epochs, "default_root_dir": str(out / "pretrained")}
    run(["fit"], config, out / "pretrain.yaml")
    return newest(out / "pretrained") / "checkpoints" / "encoder.safetensors"


def data(root: Path, index: Path, batch: int, **options: Any) -> dict[str, Any]:
    """Return the data module of an index."""
    arguments = {"index": str(index), "root": str(root), "batch_size": batch, "num_workers": 0}
    return {"class_path": "CXRDataModule", "init_args": arguments | options}


def recipe(lr: float, decay: float = 1e-4, **options: Any) -> dict[str, Any]:
    """Return AdamW with a cosine."""
    return {
        "lr": {"value": lr, "final": 0.0},
        "lr_scaling": "none",
        "weight_decay": {"value": decay},
        "layer_decay": 1.0,
        "patch_embed_lr": 1.0,
        "clip": 1.0,
        "freeze_last_layer": 0.0,
    } | options


def run(command: list[str], config: dict[str, Any], file: Path) -> None:
    """Run a command of cxrssl on a config."""
    file.write_text(yaml.safe_dump(config))
    flags = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    if code := cxrssl([*command, "--config", str(file), *flags]):
        raise SystemExit(code)


def newest(folder: Path) -> Path:
    """Return the newest run in a folder."""
    return max(folder.glob("version_*"), key=lambda path: int(path.name.partition("_")[2]))


def train_and_test(
    name: str, model: dict[str, Any], source: dict[str, Any], epochs: int, out: Path
) -> tuple[pd.DataFrame, float]:
    """Return the scores of a task and the seconds its training took."""
    trainer = {"max_epochs": epochs, "default_root_dir": str(out / name), "log_every_n_steps": 1}
    config = {"seed_everything": 0, "model": model, "data": source, "trainer": trainer}
    start = time.perf_counter()
    run(["fit"], config, out / f"{name}.yaml")
    seconds = time.perf_counter() - start
    run(["test", "--ckpt_path=last"], config, out / f"{name}.yaml")
    return pd.read_parquet(newest(out / name) / "scores.parquet"), seconds


def classifiers(encoder: Path, source: dict[str, Any], out: Path) -> dict[str, pd.DataFrame]:
    """Return the scores of each head and of fine-tuning."""
    common = {"encoder": str(encoder), "findings": FINDINGS}
    scores = {}
    for name, options in HEADS.items():
        model = {
            "class_path": "Classification",
            "init_args": {
                **common,
                "head": {"class_path": name, "init_args": options},
                "learning_rates": RATES,
                "cache": str(out / "features"),
                "recipe": recipe(1e-3),
            },
        }
        scores[name], _ = train_and_test(name, model, source, 30, out)
    model = {
        "class_path": "Classification",
        "init_args": {
            **common,
            "head": {"class_path": "LinearProbe", "init_args": {"blocks": 1, "pooling": "both"}},
            "frozen": False,
            "drop_path": 0.1,
            "views": {"class_path": "SupervisedView", "init_args": MILD},
            "recipe": recipe(1e-3, 0.05, layer_decay=0.9),
        },
    }
    scores["fine-tuning"], _ = train_and_test("finetuning", model, source, 20, out)
    return scores


def caching(
    encoder: Any, size: int, findings: list[str], source: dict[str, Any], out: Path
) -> None:
    """Print what an epoch of GLoRI takes with cached features and without, and its AUROC."""
    seconds, auroc = {}, {}
    for cache in (None, str(out / f"features{size}")):
        model = {
            "class_path": "Classification",
            "init_args": {
                "encoder": encoder,
                "findings": findings,
                "head": {"class_path": "GLoRI", "init_args": HEADS["GLoRI"]},
                "views": {"class_path": "EvalView", "init_args": {"image_size": size}},
                "cache": cache,
                "cache_dtype": "float32",
                "recipe": recipe(1e-3),
            },
        }
        name = f"{'cached' if cache else 'uncached'}{size}"
        # Both runs of a kind start and encode alike: what is between them are two epochs.
        _, short = train_and_test(f"{name}_1", model, source, 1, out)
        if cache:
            _, short = train_and_test(f"{name}_1", model, source, 1, out)
        scores, long = train_and_test(f"{name}_3", model, source, 3, out)
        macro = scores[(scores["finding"] == "macro") & (scores["metric"] == "auroc")]
        seconds[name], auroc[name] = (long - short) / 2, float(macro["value"].iloc[0])
    slow, fast = seconds.values()
    print(
        f"{size} px: {slow:.2f} and {fast:.2f} s an epoch, ratio {slow / fast:.0f}; AUROC {auroc}"
    )


def decoders(encoder: Path, source: dict[str, Any], out: Path) -> None:
    """Print Dice of each decoder on a frozen encoder at 128 pixels: the mean and of each image."""
    for name, options in DECODERS.items():
        model = {
            "class_path": "Segmentation",
            "init_args": {
                "encoder": str(encoder),
                "structures": ["lungs"],
                "decoder": {"class_path": name, "init_args": options},
                "views": {
                    "class_path": "SupervisedView",
                    "init_args": {"image_size": 128, "elastic": 0.01},
                },
                "recipe": recipe(2e-3, 0.0),
            },
        }
        scores, _ = train_and_test(name, model, source, 100, out)
        row = scores[(scores["structure"] == "lungs") & (scores["convention"] == "all images")]
        each = pd.read_parquet(newest(out / name) / "dice.parquet")["dice/lungs"].sort_values()
        mean, std, low, high = row[["mean", "std", "low", "high"]].to_numpy()[0]
        images = " ".join(f"{dice:.2f}" for dice in each)
        print(f"| {name} | {mean:.3f} ({std:.3f}) [{low:.3f}, {high:.3f}] | {images} |")


def evaluate(encoder: Path, root: Path, index: Path, out: Path) -> pd.DataFrame:
    """Return the scores of kNN, logistic regression and ridge regression."""
    flags = ["--encoder", str(encoder), "--out", str(out / "evaluation")]
    source = ["--data.root", str(root), "--data.num_workers", "0"]
    labels = ["--findings", json.dumps(FINDINGS)]
    if code := cxrssl(["evaluate", str(index), *flags, *source, *labels]):
        raise SystemExit(code)
    return pd.read_parquet(out / "evaluation" / "scores.parquet")


def cell(row: pd.Series) -> str:
    """Return a value with its interval."""
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def table(scores: dict[str, pd.DataFrame]) -> str:
    """Return a Markdown table of AUROC."""
    lines = ["| on the encoder | " + " | ".join([*FINDINGS, "macro"]) + " |"]
    lines.append("|---" * (len(FINDINGS) + 2) + "|")
    for name, each in scores.items():
        auroc = each[each["metric"] == "auroc"].set_index("finding")
        cells = [cell(auroc.loc[finding]) for finding in [*FINDINGS, "macro"]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run everything and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/downstream"))
    parser.add_argument("--epochs", type=int, default=8, help="of pretraining")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    index, lungs = write_indices(options.data, out)
    encoder = options.encoder or pretrain(options.data, index, out, options.epochs)
    labelled = data(options.data, index, 64)
    scores = classifiers(encoder, labelled, out)
    evaluated = evaluate(encoder, options.data, index, out)
    scores |= dict(iter(evaluated.groupby("method")))
    print(table(scores))
    masked = data(options.data, lungs, 8, masks={"unknown": 127})
    decoders(encoder, masked, out)
    caching(str(encoder), 64, FINDINGS, labelled, out)
    small = {"class_path": "ViT", "init_args": {"name": "vit_small", "img_size": 224}}
    large = pd.read_csv(index)
    large[large["dataset"] == "nih512"].to_csv(out / "nih512.csv", index=False)
    caching(small, 224, FINDINGS[1:], data(options.data, out / "nih512.csv", 64), out)


if __name__ == "__main__":
    main()

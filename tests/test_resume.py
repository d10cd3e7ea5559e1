"""A run that is killed and resumed repeats the run that was left alone, bit for bit."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
KILLED_AT, SAVED_EVERY, STEPS = 8, 3, 18  # nine steps an epoch: killed within the first one


def backbone(**options):
    return {"class_path": "ViT", "init_args": {**SMALL, **options}}


SMALL = {"name": "vit_tiny", "img_size": 32, "width": 32, "depth": 2, "heads": 2, "drop_path": 0.3}
JEPA = backbone(patch_size=8, class_token=False, position="sincos")
PREDICTOR = {"class_path": "Predictor", "init_args": {"width": 24, "depth": 2, "heads": 2}}
PROJECTOR = {"class_path": "Projector", "init_args": {"widths": [16, 16]}}
MLVICX = {
    "class_path": "MLVICX",
    "init_args": {
        "views": {"class_path": "PairViews", "init_args": {"image_size": 32}},
        "global_head": PROJECTOR,
        "local_head": {
            "class_path": "MultiLevelHead",
            "init_args": {"channels": 8, "widths": [16, 16]},
        },
    },
}
DINOV2 = {
    "class_path": "DINOv2",
    "init_args": {
        "views": {
            "class_path": "MultiCrop",
            "init_args": {"global_size": 32, "local_size": 16, "n_local": 2},
        },
        "dino_head": {
            "class_path": "DINOHead",
            "init_args": {"prototypes": 16, "hidden": 16, "bottleneck": 8},
        },
    },
}


CANDIDATES = {
    "linear": {"class_path": "LinearProbe"},
    "glori": {
        "class_path": "GLoRI",
        "init_args": {"blocks": 2, "width": 16, "heads": 2, "hidden": 16},
    },
}
FINDINGS = ["cardiomegaly", "effusion", "pneumothorax", "nodule", "consolidation"]
EVAL_VIEW = {"class_path": "EvalView", "init_args": {"image_size": 32}}


def on(backbone, model):
    """Return a model with a backbone of its own."""
    return {**model, "init_args": {"backbone": backbone, **model["init_args"]}}


MODELS = {
    "DINOv2": on(backbone(), DINOV2),
    "MLVICX": on(backbone(), MLVICX),
    "MLVICX, ConvNet": on(
        {"class_path": "ConvNet", "init_args": {"name": "test_resnet", "img_size": 32}}, MLVICX
    ),
    "VICReg": {
        "class_path": "VICReg",
        "init_args": {
            "backbone": backbone(),
            "views": MLVICX["init_args"]["views"],
            "expander": PROJECTOR,
        },
    },
    "LeJEPA": {
        "class_path": "LeJEPA",
        "init_args": {
            "backbone": backbone(),
            "views": DINOV2["init_args"]["views"],
            "projector": PROJECTOR,
        },
    },
    "Joint": {
        "class_path": "Joint",
        "init_args": {
            "backbone": backbone(),
            "objectives": {"dinov2": DINOV2, "mlvicx": MLVICX},
            "shares": {"mlvicx": {"value": 0.1, "final": 0.0}},
        },
    },
    "WorldModel": {
        "class_path": "WorldModel",
        "init_args": {
            "backbone": JEPA,
            "views": {
                "class_path": "WorldViews",
                "init_args": {"image_size": 32, "patch_size": 8, "min_keep": 1},
            },
            "predictor": PREDICTOR,
        },
    },
    "IJEPA": {
        "class_path": "IJEPA",
        "init_args": {
            "backbone": JEPA,
            "views": {
                "class_path": "MaskedView",
                "init_args": {"image_size": 32, "patch_size": 8, "min_keep": 1},
            },
            "predictor": PREDICTOR,
        },
    },
    "Classification, cached": {
        "class_path": "Classification",
        "init_args": {
            "encoder": backbone(),
            "findings": FINDINGS,
            "candidates": CANDIDATES,
            "learning_rates": [1e-3, 1e-2],
            "views": EVAL_VIEW,
            "cache": "{folder}/features",
        },
    },
    "Classification, fine-tuned": {
        "class_path": "Classification",
        "init_args": {
            "encoder": backbone(),
            "findings": FINDINGS,
            "head": CANDIDATES["glori"],
            "frozen": False,
            "drop_path": 0.3,
        },
    },
    "Segmentation": {
        "class_path": "Segmentation",
        "init_args": {
            "encoder": {
                "class_path": "ConvNet",
                "init_args": {"name": "test_resnet", "img_size": 32},
            },
            "structures": ["lungs", "heart"],
            "decoder": {"class_path": "UPerNetDecoder", "init_args": {"channels": 8}},
            "frozen": False,
        },
    },
}


def config(folder, workers, accumulate=1, kill=False, checkpoints=True, objective="DINOv2"):
    """Write a small run, with checkpoints of its own or the default ones, and return its file."""
    callbacks = []
    if checkpoints:
        callbacks.append(
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"save_last": True, "every_n_train_steps": SAVED_EVERY},
            }
        )
    if kill:
        callbacks.append({"class_path": "tests.faults.KillAt", "init_args": {"step": KILLED_AT}})
    content = {
        "seed_everything": 3,
        "model": MODELS[objective],
        "data": {
            "class_path": "PhantomDataModule",
            "init_args": {
                "n_images": 48 * accumulate,
                "size": 48,
                "batch_size": 4,
                "num_workers": workers,
                "split": [0.8, 0.2, 0.0],
            },
        },
        "trainer": {
            "max_steps": STEPS,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "accumulate_grad_batches": accumulate,
            "default_root_dir": str(folder),
            "callbacks": callbacks,
        },
    }
    path = folder / f"config_{kill}.yaml"
    folder.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content).replace("{folder}", str(folder)))
    return path


def fit(path, *flags):
    """Run the command in a process of its own and return its exit code."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "cxrssl", "fit", "--config", str(path), *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def losses(folder):
    """Return what was logged of each step: loss, terms, and rates, as they were written."""
    result = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name.startswith(("loss", "schedule/")):
                    result.setdefault(int(row["step"]), {})[name] = value
    return result


@pytest.mark.parametrize(
    ("objective", "workers", "accumulate"),
    [
        pytest.param("DINOv2", 0, 1, marks=pytest.mark.slow),
        ("DINOv2", 2, 2),
        ("WorldModel", 0, 2),
        pytest.param("IJEPA", 2, 1, marks=pytest.mark.slow),
        pytest.param("MLVICX", 2, 1, marks=pytest.mark.slow),
        ("MLVICX, ConvNet", 0, 2),
        pytest.param("VICReg", 0, 1, marks=pytest.mark.slow),
        ("LeJEPA", 2, 2),
        ("Joint", 2, 1),
        ("Classification, cached", 0, 2),
        pytest.param("Classification, fine-tuned", 2, 1, marks=pytest.mark.slow),
        pytest.param("Segmentation", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(
    tmp_path, objective, workers, accumulate
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, text = fit(config(whole, workers, accumulate, objective=objective))
    assert code == 0, text
    code, text = fit(config(broken, workers, accumulate, kill=True, objective=objective))
    assert code == -9, text
    # Resumed with the other number of workers: that must not matter either.
    code, text = fit(
        config(broken, workers, accumulate, objective=objective),
        "--ckpt_path=last",
        f"--data.init_args.num_workers={2 - workers}",
    )
    assert code == 0, text

    expected, resumed = losses(whole / "version_0"), losses(broken / "version_1")
    assert set(expected) == set(range(STEPS))
    first = KILLED_AT // SAVED_EVERY * SAVED_EVERY
    assert set(resumed) == set(range(first, STEPS))
    for step, values in resumed.items():
        assert values == expected[step], step
    before = losses(broken / "version_0")
    assert {step: expected[step] for step in before} == before


@pytest.mark.slow
def test_a_sharded_run_has_all_its_files_and_goes_on_in_one_process(tmp_path):
    path = config(tmp_path, workers=0, checkpoints=False)
    code, text = fit(
        path,
        "--trainer.strategy=fully_sharded",
        "--trainer.devices=2",
        "--data.init_args.batch_size=2",
    )
    assert code == 0, text
    assert "could not be drawn" not in text
    run = tmp_path / "version_0"
    assert (run / "patches.png").exists()
    assert (run / "checkpoints" / "encoder.safetensors").exists()
    code, text = fit(path, "--ckpt_path=last", f"--trainer.max_steps={STEPS + 2}")
    assert code == 0, text
    assert set(losses(tmp_path / "version_1")) == {STEPS, STEPS + 1}

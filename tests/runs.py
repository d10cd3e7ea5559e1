"""Small runs of the command, and what they have logged."""

import csv

import yaml

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


def losses(folder):
    """Return what was logged of each step: loss, terms, and rates, as they were written."""
    result = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name.startswith(("loss", "schedule/")):
                    result.setdefault(int(row["step"]), {})[name] = value
    return result

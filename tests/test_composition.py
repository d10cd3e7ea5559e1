"""Any objective on any backbone, data, precision and accumulation, by flags of the command alone.

The default suite takes combinations that cover every pair of choices; the slow one takes them all.
"""

import itertools
import shutil

import pandas as pd
import pytest

from cxrssl.__main__ import main
from cxrssl.data.phantom import Phantom, write_png

N_IMAGES, SIDE, PATCH = 12, 64, 16
VIT = {"name": "vit_tiny", "patch_size": PATCH, "width": 32, "depth": 2, "heads": 2}
BACKBONES = {
    "vit": ("ViT", {**VIT, "registers": 2}),
    "bare_vit": ("ViT", {**VIT, "class_token": "false"}),
    "resnet": ("ConvNet", {"name": "test_resnet"}),
}
HEAD = {"prototypes": 16, "hidden": 16, "bottleneck": 8}
PREDICTOR = {"width": 24, "depth": 2, "heads": 2}
CROPS = {"global_size": SIDE, "local_size": 48, "n_local": 2, "patch_size": PATCH}
TOKENS = {"image_size": SIDE, "patch_size": PATCH, "min_keep": 1}


def flags(prefix, options):
    return [f"--{prefix}.{key}={value}" for key, value in options.items()]


def a(name, options):
    """Return a class and its arguments as a flag's value."""
    arguments = ", ".join(f"{key}: {value}" for key, value in options.items())
    return f"{{class_path: {name}, init_args: {{{arguments}}}}}"


PARTS = {
    "DINOv2": {"views": a("MultiCrop", CROPS), "dino_head": a("DINOHead", HEAD)},
    "WorldModel": {"views": a("WorldViews", TOKENS), "predictor": a("Predictor", PREDICTOR)},
    "IJEPA": {"views": a("MaskedView", TOKENS), "predictor": a("Predictor", PREDICTOR)},
    "MLVICX": {
        "views": a("PairViews", {"image_size": SIDE}),
        "global_head": a("Projector", {"widths": [16, 16]}),
        "local_head": a("MultiLevelHead", {"channels": 8, "widths": [16, 16]}),
    },
    "VICReg": {
        "views": a("PairViews", {"image_size": SIDE}),
        "expander": a("Projector", {"widths": [16, 16]}),
    },
    "LeJEPA": {
        "views": a("MultiCrop", CROPS),
        "projector": a("Projector", {"widths": [16, 8]}),
    },
}
OBJECTIVES = {name: [name, *flags("model", parts)] for name, parts in PARTS.items()}
for first, second in (("DINOv2", "MLVICX"), ("WorldModel", "DINOv2"), ("LeJEPA", "VICReg")):
    parts = {name.lower(): a(name, PARTS[name]) for name in (first, second)}
    given = ", ".join(f"{name}: {value}" for name, value in parts.items())
    OBJECTIVES[f"Joint {first} {second}"] = ["Joint", f"--model.objectives={{{given}}}"]
DATA = ("phantom", "folder", "csv")
PRECISIONS = ("32-true", "bf16-mixed")
ACCUMULATIONS = (1, 3)
NEEDS_CLASS_TOKEN = "DINOv2"
NEEDS_VIT = ("DINOv2", "WorldModel", "IJEPA")


def refusal(objective, backbone):
    """Return what the command says of a combination that cannot work, None if it can."""
    if backbone == "resnet":
        first = [name for name in objective.split() if name in NEEDS_VIT]
        return f"{first[0]} hides patch tokens" if first else None
    if backbone == "bare_vit" and NEEDS_CLASS_TOKEN in objective:
        return "DINOv2 compares class tokens"
    return None


GRID = list(itertools.product(OBJECTIVES, BACKBONES, DATA, PRECISIONS, ACCUMULATIONS))
POSSIBLE = [each for each in GRID if refusal(*each[:2]) is None]


def pairs(combination):
    return set(itertools.combinations(enumerate(combination), 2))


def covering(combinations):
    """Return combinations that hold every pair of choices, greedily few."""
    wanted = set().union(*map(pairs, combinations))
    chosen = []
    while wanted:
        chosen.append(max(combinations, key=lambda each: len(pairs(each) & wanted)))
        wanted -= pairs(chosen[-1])
    return chosen


FEW = covering(POSSIBLE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    phantom = Phantom(48)
    names = [f"{number}.png" for number in range(N_IMAGES)]
    for number, name in enumerate(names):
        write_png(phantom, number, path / name)
    table = pd.DataFrame({"path": names, "effusion": [0, 1] * (N_IMAGES // 2)})
    table["split"] = ["train"] * 8 + ["val"] * 4
    table.to_csv(path / "index.csv", index=False)
    yield path
    shutil.rmtree(path)


def command(objective, backbone, data, precision, accumulation, folder, run):
    name, *options = OBJECTIVES[objective]
    kind, arguments = BACKBONES[backbone]
    sources = {
        "phantom": ["PhantomDataModule", f"--data.n_images={N_IMAGES}", "--data.size=48"],
        "folder": ["CXRDataModule", f"--data.root={folder}"],
        "csv": ["CXRDataModule", f"--data.index={folder / 'index.csv'}", f"--data.root={folder}"],
    }
    source, *source_options = sources[data]
    return [
        "fit",
        f"--model={name}",
        f"--model.backbone={a(kind, {**arguments, 'img_size': SIDE})}",
        *options,
        f"--data={source}",
        *source_options,
        "--data.batch_size=2",
        "--data.num_workers=0",
        f"--trainer.precision={precision}",
        f"--trainer.accumulate_grad_batches={accumulation}",
        "--trainer.max_steps=2",
        "--trainer.max_epochs=-1",
        "--trainer.limit_val_batches=1",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.log_every_n_steps=1",
        f"--trainer.default_root_dir={run}",
    ]


def trains_two_steps(combination, folder, tmp_path):
    assert main(command(*combination, folder, tmp_path)) == 0
    metrics = pd.read_csv(tmp_path / "version_0" / "metrics.csv")
    steps = metrics[metrics["loss"].notna()]
    assert len(steps) == 2
    assert steps.filter(regex="^loss").notna().all(axis=None)


def name_of(combination):
    return "-".join(map(str, combination))


@pytest.mark.filterwarnings("ignore:The online probe is skipped")  # the folder has no labels
@pytest.mark.parametrize("combination", FEW, ids=name_of)
def test_every_pair_of_choices_trains_two_steps(combination, folder, tmp_path):
    trains_two_steps(combination, folder, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The online probe is skipped")
@pytest.mark.parametrize("combination", [c for c in POSSIBLE if c not in FEW], ids=name_of)
def test_every_combination_trains_two_steps(combination, folder, tmp_path):
    trains_two_steps(combination, folder, tmp_path)


@pytest.mark.parametrize(
    ("objective", "backbone"),
    [pair for pair in itertools.product(OBJECTIVES, BACKBONES) if refusal(*pair) is not None],
)
def test_what_cannot_work_says_so_in_one_sentence(objective, backbone, folder, tmp_path, capsys):
    combination = (objective, backbone, "folder", "32-true", 1)
    assert main(command(*combination, folder, tmp_path)) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert refusal(objective, backbone) in line
    assert not (tmp_path / "version_0").exists()

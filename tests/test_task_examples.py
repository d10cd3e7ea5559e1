"""Every example of a task trains two steps on a small encoder and is tested."""

import runpy
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import save_file

from cxrssl.__main__ import main
from cxrssl.backbones import ConvNet, ViT
from cxrssl.data import encode_runs
from cxrssl.data.phantom import Phantom, write_png
from cxrssl.objectives import VICReg
from tests.test_examples import EXAMPLES, STAGES, TASKS, all_examples, model_of, text_of

N_IMAGES, SIDE = 24, 56
TINY = [
    "--data.batch_size=4",
    "--data.num_workers=0",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
]
SMALLER = {
    "class_path: GLoRI": ["--model.head.width=16", "--model.head.hidden=16"],
    "UPerNetDecoder": ["--model.decoder.channels=8"],
}
FIGURES = {"Segmentation": "overlays.png", "GLoRI": "attention.png"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Return the files of small encoders by channels, and of a gated ResNet."""
    folder = tmp_path_factory.mktemp("encoders")
    small = {"patch_size": 14, "img_size": SIDE, "width": 32, "depth": 4, "heads": 2}
    gated = ConvNet("test_resnet", img_size=SIDE, in_chans=3)
    gated.insert_gates()
    made = {
        1: ViT("vit_tiny", **small),
        3: ViT("vit_tiny", in_chans=3, **small),
        "resnet": gated,
    }
    return {
        name: saved(backbone, folder / f"{name}.safetensors") for name, backbone in made.items()
    }


def saved(backbone, path):
    """Write an encoder as a run does, and return its file."""
    import json

    torch.manual_seed(0)
    description = json.dumps(VICReg(backbone).describe())
    save_file(backbone.state_dict(), path, metadata={"cxrssl": description})
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of radiographs and an index of them with every label and mask."""
    folder = tmp_path_factory.mktemp("images")
    phantom, rng = Phantom(64), np.random.default_rng(0)
    rows = []
    for number in range(N_IMAGES):
        write_png(phantom, number, folder / f"{number}.png")
        mask = np.zeros((1024, 1024), dtype=np.bool_)
        mask[100 : 200 + 10 * number, 300:500] = True
        split = ("train", "train", "val", "test")[number % 4]
        runs = "-1" if number % 3 else encode_runs(mask, "gap")
        rows.append({"path": f"{number}.png", "patient_id": number, "split": split, "mask": runs})
    names = {
        finding
        for name in all_examples()
        if model_of(name) in TASKS
        for finding in read(name)["model"]["init_args"].get("findings", [])
    }
    index = pd.DataFrame(rows)
    for finding in sorted(names):
        index[finding] = (np.arange(N_IMAGES) // 4 + rng.integers(2)) % 2
    index.to_csv(folder / "index.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """Return the folder that the script beside the examples writes."""
    folder = tmp_path_factory.mktemp("language_model")
    arguments, sys.argv = sys.argv, ["phantom_language_model.py", str(folder)]
    try:
        runpy.run_path(str(EXAMPLES / "phantom_language_model.py"), run_name="__main__")
    finally:
        sys.argv = arguments
    return folder


def read(name):
    """Return an example's own settings."""
    return yaml.safe_load((EXAMPLES / name).read_text())


@pytest.mark.parametrize("name", [name for name in all_examples() if model_of(name) in TASKS])
def test_example_trains_and_is_tested(name, encoders, images, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = text_of(name)
    kind = "resnet" if "mlvicx" in name else 3 if "in_chans: 3" in text else 1
    flags = [*TINY, f"--trainer.default_root_dir={tmp_path}", f"--model.encoder={encoders[kind]}"]
    if "class_path: SupervisedView" in text:
        flags.append(f"--model.views.image_size={SIDE}")
    for part, smaller in SMALLER.items():
        flags += (
            smaller if f"head: {{{part}" in text or f"decoder: {{class_path: {part}" in text else []
        )
    if "language_model" in text:
        flags.append(f"--model.language_model={request.getfixturevalue('language_model')}")
    if "PhantomDataModule" in text:
        flags += ["--data.n_images=40", "--data.split=[0.6, 0.2, 0.2]"]
    else:
        flags += [f"--data.root={images}", f"--data.index={images / 'index.csv'}"]
    if "subset: " in text:
        flags.append("--data.subset=0.5")
    configs = [STAGES[name], name] if name in STAGES else [name]
    given = [word for config in configs for word in ("--config", str(EXAMPLES / config))]
    assert main(["fit", *given, *flags]) == 0
    assert main(["test", *given, *flags, "--ckpt_path=last"]) == 0
    run = tmp_path / "version_1"
    assert (run / "scores.json").is_file()
    for part, figure in FIGURES.items():
        if part in text and "candidates:" not in text:
            assert (run / figure).is_file()

"""Every example parses, builds and trains two steps on a small backbone."""

import re
import shutil
from pathlib import Path

import pytest

from cxrssl.__main__ import main
from cxrssl.backbones import ViT
from cxrssl.data.phantom import Phantom, write_png
from tests.backbones.official import official_state, save_official
from tests.test_corpora import CORPORA

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = {"width": 32, "depth": 2, "heads": 2}
TINY_VIT = [f"--model.backbone.{key}={value}" for key, value in SMALL.items()]
TINY_CONVNET = ["--model.backbone.name=test_resnet", "--model.fusion_size=16"]
TINY = [
    "--data.batch_size=2",
    "--data.num_workers=0",
    "--trainer.max_steps=2",
    "--trainer.max_epochs=-1",
    "--trainer.accumulate_grad_batches=1",
    "--trainer.limit_val_batches=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false",
    "--trainer.log_every_n_steps=1",
]
TINY_DINO = [
    "--model.views.n_local=1",
    "--model.dino_head.prototypes=16",
    "--model.dino_head.hidden=16",
    "--model.dino_head.bottleneck=8",
]
TINY_PREDICTOR = [
    "--model.predictor.width=24",
    "--model.predictor.depth=2",
    "--model.predictor.heads=2",
]
TINY_LEVELS = ["--model.global_head.widths=[16,16]", "--model.local_head.widths=[16,16]"]
IBOT_HEAD = [
    "--model.ibot_head.prototypes=16",
    "--model.ibot_head.hidden=16",
    "--model.ibot_head.bottleneck=8",
]
TINY_HEADS = {
    "DINOv2": TINY_DINO,
    "WorldModel": TINY_PREDICTOR,
    "IJEPA": TINY_PREDICTOR,
    "MLVICX": TINY_LEVELS,
}

TASKS = ("Classification", "Segmentation", "ReportGeneration")
STAGES = {
    "recipes/adapt_rad_dino.yaml": "recipes/rad_dino_vitb14_518.yaml",
    "recipes/chexfound_vitl16_512.yaml": "recipes/chexfound_vitl16_224.yaml",
    "recipes/medfmc_few_shot.yaml": "recipes/chexworld_finetuning.yaml",
}


def all_examples():
    """Return the names of all examples but the corpora, which stand in `test_corpora`."""
    names = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml"))
    return [name for name in names if Path(name).stem not in CORPORA]


def text_of(name):
    """Return the text of an example, after that of the one it is put on top of."""
    configs = [STAGES[name], name] if name in STAGES else [name]
    return "".join((EXAMPLES / config).read_text() for config in configs)


def model_of(name):
    """Return the class of an example's model."""
    return re.search("^  class_path: (.*)$", text_of(name), re.MULTILINE).group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    phantom = Phantom(64)
    for number in range(12):
        write_png(phantom, number, path / f"{number}.png")
    yield path
    shutil.rmtree(path)


@pytest.mark.filterwarnings("ignore:The online probe is skipped")  # the folder has no labels
@pytest.mark.parametrize("name", [name for name in all_examples() if model_of(name) not in TASKS])
def test_example_trains_two_steps(name, folder, tmp_path):
    configs = [STAGES[name], name] if name in STAGES else [name]
    text = text_of(name)
    flags = [*TINY, f"--trainer.default_root_dir={tmp_path}"]
    flags += TINY_CONVNET if "ConvNet" in text and "ViT" not in text else TINY_VIT
    flags += TINY_HEADS.get(model_of(name), [])
    if "levels: [2" in text:
        flags.append("--model.levels=[0,1]")
    if "weights: dinov2" in text:
        released = ViT(
            "vit_base", img_size=518, patch_size=14, in_chans=3, layer_scale=1.0, **SMALL
        )
        path = save_official(official_state(released), tmp_path / "dinov2.pth")
        flags.append(f"--model.backbone.weights={path}")
    if "ibot_head" in text:
        flags += IBOT_HEAD
    if "PhantomDataModule" in text:
        flags.append("--data.n_images=12")
    else:
        flags.append(f"--data.root={folder}")
    arguments = ["fit"]
    for config in configs:
        arguments += ["--config", str(EXAMPLES / config)]
    assert main(arguments + flags) == 0
    run = tmp_path / "version_0"
    assert (run / "config.yaml").is_file()
    assert (run / "checkpoints" / "encoder.safetensors").is_file()
    assert (run / "metrics.csv").is_file()

"""What the README says is what runs."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser

from cxrssl.backbones import ViT
from cxrssl.data import PhantomDataModule
from cxrssl.objectives import Objective
from tests.objectives.training import quiet_trainer
from tests.readme_tables import TABLES, table_of

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def block(marker):
    """Return the code block that follows a marker."""
    match = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    return match.group(1)


def test_the_example_objective_trains():
    code = block("example: objective")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    namespace = {}
    exec(code, namespace)
    torch.manual_seed(0)
    backbone = ViT("vit_tiny", img_size=32, width=32, depth=1, heads=2)
    objective = namespace["BYOL"](backbone, views=namespace["MultiCrop"](global_size=32, n_local=0))
    before = objective.teacher.module.vit.norm.weight.clone()
    data = PhantomDataModule(40, 64, views=objective.views, batch_size=8, num_workers=0)
    trainer = quiet_trainer(max_steps=3, limit_val_batches=1)
    trainer.fit(objective, datamodule=data)
    assert trainer.global_step == 3
    assert not torch.equal(before, objective.teacher.module.vit.norm.weight)


def test_the_example_of_several_objectives_is_built():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Objective, "model")
    model = yaml.safe_load(block("example: joint"))["model"]
    model["init_args"]["backbone"]["init_args"] |= {"width": 32, "depth": 2, "heads": 2}
    given = parser.parse_args([f"--model={json.dumps(model)}"])
    joint = parser.instantiate(given).model
    assert list(joint.objectives) == ["dinov2", "mlvicx"]
    assert [joint.share("mlvicx", progress) for progress in (0.0, 1.0)] == [0.1, 0.0]
    assert joint.children_by_name["mlvicx"].weight("sigreg") == 0.05
    assert joint.encoder is joint.children_by_name["dinov2"].encoder


OTHERS = {"NonFiniteLossError", "Objective", "Recipe", "RecipeModule", "Task", "Teacher"}


def test_every_class_it_names_exists():
    import cxrssl.backbones
    import cxrssl.callbacks
    import cxrssl.data
    import cxrssl.heads
    import cxrssl.objectives
    import cxrssl.run_files
    import cxrssl.views

    table = README.split("## What is in it")[1].split("## Limits")[0]
    named = set(re.findall(r"`([A-Z]\w+)`", table)) - {"VisionTransformer"}
    rooms = [
        cxrssl.backbones,
        cxrssl.callbacks,
        cxrssl.data,
        cxrssl.heads,
        cxrssl.objectives,
        cxrssl.run_files,
        cxrssl.tasks,
        cxrssl.views,
    ]
    known = {name for room in rooms for name in room.__all__}
    assert named <= known
    # And every objective, task and callback is named.
    for room in (cxrssl.callbacks, cxrssl.objectives, cxrssl.tasks):
        classes = {n for n in room.__all__ if isinstance(getattr(room, n), type)}
        assert classes - OTHERS <= named


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_the_code_makes(name):
    assert table_of(name) == TABLES[name](), "write it: python -m tests.readme_tables"

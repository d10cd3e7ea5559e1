"""The command as a user meets it: what it prints, what it leaves behind, how it ends."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from cxrssl import __version__
from cxrssl.__main__ import main
from cxrssl.data.phantom import Phantom, write_png
from tests.runs import config

QUICK = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1"]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a subcommand of a small run with extra flags."""
    path = config(tmp_path / "run", workers=0, checkpoints=False)

    def call(command, *flags):
        return main([command, "--config", str(path), *flags])

    call.folder = tmp_path / "run"
    return call


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for number in range(10):
        write_png(Phantom(48), number, path / f"{number}.png")
    return path


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from cxrssl.__main__ import main; main(['--help']); main(['--version']); "
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage: cxrssl <command>" in done.stdout
    assert f"cxrssl {__version__}" in done.stdout


def test_no_command_is_bad_input(capsys):
    assert main([]) == 2
    assert "usage: cxrssl" in capsys.readouterr().out


def test_a_rerun_gets_a_folder_of_its_own(run):
    assert run("fit", *QUICK) == 0
    assert run("fit", *QUICK) == 0
    for version in ("version_0", "version_1"):
        names = {path.name for path in (run.folder / version).iterdir()}
        assert {"config.yaml", "metrics.csv", "curves.png", "patches.png"} <= names
        assert any(name.startswith("events.") for name in names)


def test_saved_config_repeats_the_run(run):
    assert run("fit", *QUICK) == 0
    saved = run.folder / "version_0" / "config.yaml"
    assert main(["fit", "--config", str(saved)]) == 0
    first, second = (
        torch.load(run.folder / version / "checkpoints" / "last.ckpt", weights_only=True)
        for version in ("version_0", "version_1")
    )
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name


def test_validate_test_and_predict_of_a_checkpoint(run, capsys):
    assert run("fit", *QUICK) == 0
    path = str(run.folder / "version_0" / "checkpoints" / "last.ckpt")
    assert run("validate", f"--ckpt_path={path}") == 0
    out = capsys.readouterr().out
    assert "val/loss" in out
    assert "probe/linear/auroc/macro" in out
    assert run("test", f"--ckpt_path={path}", "--data.split=[0.6, 0.2, 0.2]") == 0
    assert "test/loss" in capsys.readouterr().out
    assert run("predict", f"--ckpt_path={path}", "--return_predictions=false") == 0
    (path,) = run.folder.glob("version_*/embeddings.parquet")
    table = pd.read_parquet(path)
    assert len(table) == 48
    assert {"path", "patient_id", "effusion"} <= set(table.columns)
    assert len(table["embedding"].iloc[0]) == 32


def test_checkpoints_within_a_long_epoch_replace_one_another(run):
    after_every_step = ["--trainer.callbacks=RecentCheckpoint", "--trainer.callbacks.every=0:00:00"]
    flags = ["--trainer.max_steps=4", "--trainer.limit_val_batches=1"]
    assert run("fit", *flags, *after_every_step) == 0
    folder = run.folder / "version_0" / "checkpoints"
    assert sorted(path.name for path in folder.glob("recent*")) == ["recent.ckpt"]
    assert torch.load(folder / "recent.ckpt", weights_only=True)["global_step"] == 4


def test_a_checkpoint_of_another_run_is_refused(run, capsys):
    assert run("fit", *QUICK) == 0
    last = f"--ckpt_path={run.folder / 'version_0' / 'checkpoints' / 'last.ckpt'}"
    cases = {
        "does not fit DINOv2 .*of another shape": ["--model.backbone.width=16"],
        "is of another recipe .lr_factor": ["--model.recipe.layer_decay=0.5"],
        "there is no checkpoint .*gone.ckpt": [f"--ckpt_path={run.folder / 'gone.ckpt'}"],
    }
    for message, flags in cases.items():
        capsys.readouterr()
        assert run("fit", last, *flags) == 2
        assert re.search(f"cxrssl: error: .*{message}", capsys.readouterr().err)


def test_validating_the_last_checkpoint_needs_one(run, capsys):
    assert run("validate", "--ckpt_path=last") == 2
    assert "there is no checkpoint below" in capsys.readouterr().err
    assert run("fit", *QUICK) == 0
    assert run("validate", "--ckpt_path=last") == 0


def refused(arguments, capsys):
    """Return what the command says when it refuses its input."""
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.backbone.widht=3"], "widht"),
        (["--model.recipe.lr.vlaue=3"], "vlaue"),
        (["--data.batchsize=3"], "batchsize"),
        (["--trainer.max_step=3"], "max_step"),
        (["--model=DINOv9"], "DINOv9"),
        (["--data.views=EvalView"], "views"),
        (["--model.views=EvalView"], "DINOv2 needs views that make global_crops, masks; EvalView"),
        (["--model.views.patch_size=8"], "views mask patches of 8 px but the backbone's have 16"),
        (["--model.views.in_chans=3"], "images of 3 channel"),
        (["--model.weights.ibott=0"], "no loss term is called ibott; DINOv2 has dino_local"),
        (["--model.backbone.name=vit_tini"], "unknown backbone 'vit_tini'"),
        (["--model.backbone.img_size=40"], "img_size must be a multiple of patch_size 16, got 40"),
        (["--model.recipe.lr.warmup=1.5"], "at most 1, got warmup=1.5"),
        (["--model.dino_head.layers=0"], "layers must be at least 1, got 0"),
        (["--trainer.precision=16-true"], "weights kept in 16-true cannot follow"),
        (["--model.weights.koleoo=1"], "no loss term is called koleoo"),
        (["--model.backbone.weights=/nowhere.pth"], "there is no weight file /nowhere.pth"),
        (["--trainer.max_steps=-1", "--trainer.max_epochs=-1"], "the run has no end"),
    ],
)
def test_bad_input_gets_a_sentence(run, capsys, flags, message):
    text = refused(["fit", "--config", str(run.folder / "config_False.yaml"), *flags], capsys)
    assert message in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("root", "message"),
    [("missing", "missing"), ("empty", "no image")],
)
def test_missing_and_empty_folders(run, capsys, tmp_path, root, message):
    (tmp_path / "empty").mkdir()
    flags = ["--data=CXRDataModule", f"--data.root={tmp_path / root}"]
    text = refused(["fit", "--config", str(run.folder / "config_False.yaml"), *flags], capsys)
    assert message in text
    assert str(tmp_path / root) in text


@pytest.mark.filterwarnings("ignore:The online probe is skipped")
@pytest.mark.filterwarnings("ignore:(?s).*images could not be read")
def test_a_folder_with_a_corrupt_image_trains(run, folder, capsys):
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    flags = ["--data=CXRDataModule", f"--data.root={folder}", "--data.num_workers=0"]
    assert run("fit", *flags, "--data.split=[1.0, 0.0, 0.0]", *QUICK) == 0
    assert run("predict", *flags, "--return_predictions=false", "--ckpt_path=last") == 0
    (path,) = run.folder.glob("version_*/embeddings.parquet")
    table = pd.read_parquet(path)
    blank = table["embedding"].map(lambda row: bool(np.isnan(row).all()))
    assert table["path"][blank].map(os.path.basename).tolist() == ["3.png"]


@pytest.mark.filterwarnings("ignore:The online probe is skipped")
def test_testing_a_world_model_on_an_index_reports_what_it_knows(tmp_path, folder, capsys):
    path = config(tmp_path / "run", workers=0, checkpoints=False, objective="WorldModel")
    assert main(["fit", "--config", str(path), *QUICK]) == 0
    index = tmp_path / "index.csv"
    rows = [{"path": str(file), "split": "test"} for file in sorted(folder.glob("*.png"))]
    rows[0]["split"] = "train"
    pd.DataFrame(rows).to_csv(index, index=False)
    flags = [
        "--ckpt_path=last",
        "--data=CXRDataModule",
        f"--data.index={index}",
        "--data.batch_size=4",
        "--data.num_workers=0",
        "--trainer.callbacks=WorldReport",
        "--trainer.callbacks.images=5",
        "--trainer.callbacks.candidates=6",
    ]
    assert main(["test", "--config", str(path), *flags]) == 0
    table = pd.read_csv(tmp_path / "run" / "version_1" / "world.csv")
    assert set(table["task"]) == {"domain", "layout", "local"}
    assert table.loc[table["measure"] == "recall@1", "value"].notna().all()
    assert (tmp_path / "run" / "version_1" / "world.png").stat().st_size > 10_000
    assert "recall@1" in capsys.readouterr().out

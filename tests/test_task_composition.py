"""Any head and decoder on any encoder, data, precision and accumulation, by flags alone.

As for objectives, the default suite takes combinations that cover every pair of choices.
"""

import itertools
import subprocess
import sys

import cv2
import numpy as np
import pandas as pd
import pytest

from cxrssl.__main__ import main
from cxrssl.data.phantom import Phantom, write_png
from tests.test_composition import (
    ACCUMULATIONS,
    BACKBONES,
    N_IMAGES,
    PRECISIONS,
    SIDE,
    a,
    covering,
    name_of,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:Nothing can be scored",  # so few images
    "ignore:Couldn't infer the batch indices",
)
FINDINGS, STRUCTURES = ["effusion"], ["lungs", "heart"]
HEADS = {
    "LinearProbe": {"pooling": "both"},
    "AttentiveProbe": {"heads": 2},
    "GLoRI": {"blocks": 1, "width": 16, "heads": 2, "hidden": 16},
}
DECODERS = {
    "LinearDecoder": {"blocks": 2},
    "ViTDetDecoder": {"channels": 8},
    "UPerNetDecoder": {"channels": 8, "auxiliary_weight": 0.4},
    "UNetDecoder": {"width": 2},
}
FROZEN = (True, False)
GRID = list(
    itertools.product(
        [*HEADS, *DECODERS], BACKBONES, ("phantom", "csv"), PRECISIONS, ACCUMULATIONS, FROZEN
    )
)
FEW = covering(GRID)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("labelled")
    phantom = Phantom(48)
    rows = []
    for number in range(N_IMAGES):
        write_png(phantom, number, path / f"{number}.png")
        row = {"path": f"{number}.png", "effusion": number % 2}
        for structure in STRUCTURES:
            row[f"mask/{structure}"] = f"{structure}_{number}.png"
            mask = 255 * phantom.draw(number).masks[structure].astype(np.uint8)
            cv2.imwrite(str(path / f"{structure}_{number}.png"), mask)
        rows.append(row)
    table = pd.DataFrame(rows)
    table["split"] = ["train"] * 6 + ["val"] * 3 + ["test"] * 3
    table.to_csv(path / "index.csv", index=False)
    return path


def of_a_task(part, backbone, data, folder, run):
    """Return the flags that say what is done on what, the same for all subcommands."""
    kind, arguments = BACKBONES[backbone]
    task, option, names = (
        ("Classification", "head", f"--model.findings={FINDINGS}")
        if part in HEADS
        else ("Segmentation", "decoder", f"--model.structures={STRUCTURES}")
    )
    source, *options = {
        "phantom": ["PhantomDataModule", f"--data.n_images={2 * N_IMAGES}", "--data.size=48"],
        "csv": ["CXRDataModule", f"--data.index={folder / 'index.csv'}", f"--data.root={folder}"],
    }[data]
    return [
        f"--model={task}",
        f"--model.encoder={a(kind, {**arguments, 'img_size': SIDE})}",
        names,
        f"--model.{option}={a(part, (HEADS | DECODERS)[part])}",
        f"--data={source}",
        *options,
        "--data.batch_size=2",
        "--data.num_workers=0",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.log_every_n_steps=1",
        f"--trainer.default_root_dir={run}",
    ]


def trains_two_steps(combination, folder, tmp_path):
    part, backbone, data, precision, accumulation, frozen = combination
    flags = [
        f"--model.frozen={str(frozen).lower()}",
        f"--trainer.precision={precision}",
        f"--trainer.accumulate_grad_batches={accumulation}",
        "--trainer.max_steps=2",
        "--trainer.max_epochs=-1",
        "--trainer.limit_val_batches=1",
        "--trainer.callbacks=RunFigures",
        "--trainer.callbacks.images=0",  # figures take longer than the training
    ]
    assert main(["fit", *of_a_task(part, backbone, data, folder, tmp_path), *flags]) == 0
    run = tmp_path / "version_0"
    metrics = pd.read_csv(run / "metrics.csv")
    steps = metrics[metrics["loss"].notna()]
    assert len(steps) == 2
    assert steps.filter(regex="^loss").notna().all(axis=None)
    assert (run / "curves.png").is_file()
    assert (run / "checkpoints" / "encoder.safetensors").is_file() != frozen


@pytest.mark.parametrize("combination", FEW, ids=name_of)
def test_every_pair_of_choices_trains_two_steps(combination, folder, tmp_path):
    trains_two_steps(combination, folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("combination", [c for c in GRID if c not in FEW], ids=name_of)
def test_every_combination_trains_two_steps(combination, folder, tmp_path):
    trains_two_steps(combination, folder, tmp_path)


WRITTEN = {
    "others": {"dice.parquet", "overlays.png"},
    "LinearProbe": {"predictions.parquet"},
    "AttentiveProbe": {"predictions.parquet"},
    "GLoRI": {"predictions.parquet", "attention.png"},
}


@pytest.mark.parametrize(
    "part",
    [
        "GLoRI",
        "UPerNetDecoder",
        *(
            pytest.param(part, marks=pytest.mark.slow)
            for part in (*HEADS, *DECODERS)
            if part not in ("GLoRI", "UPerNetDecoder")
        ),
    ],
)
def test_a_checkpoint_is_validated_tested_and_predicted_with(part, folder, tmp_path):
    flags = of_a_task(part, "vit", "csv", folder, tmp_path)
    assert main(["fit", *flags, "--trainer.max_epochs=1"]) == 0
    for command in ("validate", "test", "predict"):
        assert main([command, *flags, "--ckpt_path=last"]) == 0
    written = {path.name for path in (tmp_path / "version_2").iterdir()}
    assert {"scores.parquet", "scores.json"} | WRITTEN.get(part, WRITTEN["others"]) <= written
    predictions = pd.read_parquet(tmp_path / "version_3" / "predictions.parquet")
    assert list(predictions) == ["path", *(FINDINGS if part in HEADS else STRUCTURES)]
    assert len(predictions) == N_IMAGES
    assert predictions.notna().all(axis=None)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.head=GLoRy", "GLoRy"),
        ("--model.head.block=2", "block"),
        ("--model.findings=[hernia]", "the index has no label 'hernia'"),
        ("--model.views={class_path: SupervisedView, init_args: {image_size: 40}}", "do not tile"),
        (
            "--model.views={class_path: EvalView, init_args: {image_size: 64, in_chans: 3}}",
            "set views.in_chans to 1",
        ),
        ("--model.encoder=nowhere.safetensors", "nowhere.safetensors"),
        ("--model.candidates={a: GLoRy}", "GLoRy"),
        ("--model.loss=focal", "focal"),
        ("--model.uncertain={hernia: ones}", "uncertain names hernia"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(flag, message, folder, tmp_path, capsys):
    flags = of_a_task("LinearProbe", "vit", "csv", folder, tmp_path)
    try:
        code = main(["fit", *flags, flag, "--trainer.max_epochs=1"])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("split", ["val", "test"])
def test_one_class_only(split, folder, tmp_path, capsys):
    table = pd.read_csv(folder / "index.csv")
    table.loc[table["split"] == split, "effusion"] = 0
    table.to_csv(folder / f"no_{split}.csv", index=False)
    flags = of_a_task("LinearProbe", "vit", "csv", folder, tmp_path)
    monitor = a("ModelCheckpoint", {"monitor": "val/auroc/macro", "mode": "max"})
    flags += [f"--data.index={folder / f'no_{split}.csv'}", f"--trainer.callbacks={monitor}"]
    assert main(["fit", *flags, "--trainer.max_epochs=1"]) == 0
    assert list((tmp_path / "version_0" / "checkpoints").glob("*.ckpt"))
    assert main(["test", *flags, "--ckpt_path=last"]) == (2 if split == "test" else 0)
    message = "no finding has both positive and negative test images, so nothing can be scored"
    assert (message in capsys.readouterr().err) == (split == "test")


def test_labels_out_of_range_are_refused(folder, tmp_path, capsys):
    table = pd.read_csv(folder / "index.csv")
    table.loc[2, "effusion"] = 3
    table.to_csv(folder / "three.csv", index=False)
    flags = of_a_task("LinearProbe", "vit", "csv", folder, tmp_path)
    flags += [f"--data.index={folder / 'three.csv'}", "--data.labels=[effusion]"]
    assert main(["fit", *flags, "--trainer.max_epochs=1"]) == 2
    assert "effusion" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("part", ["GLoRI", "ViTDetDecoder"])  # without batch norms
def test_two_processes_score_each_image_once(part, folder, tmp_path):
    logged = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        flags = of_a_task(part, "vit", "csv", folder, run)
        flags += [f"--data.batch_size={2 // processes}", f"--trainer.devices={processes}"]
        if part == "GLoRI":
            flags.append("--model.head.dropout=0")
        for command in (["fit", "--trainer.max_epochs=2"], ["test", "--ckpt_path=last"]):
            done = subprocess.run(
                [sys.executable, "-m", "cxrssl", command[0], *flags, *command[1:]],
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr
        metrics = pd.read_csv(run / "version_0" / "metrics.csv").filter(regex="^(val|loss)")
        scores = pd.read_json(run / "version_1" / "scores.json").select_dtypes("number")
        logged.append((metrics.dropna(how="all").reset_index(drop=True), scores))
    for one, two in zip(*logged, strict=True):
        pd.testing.assert_frame_equal(two[sorted(two)], one[sorted(one)], atol=1e-4, rtol=1e-4)

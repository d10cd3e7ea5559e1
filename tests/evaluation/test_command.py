import json

import pandas as pd
import pytest
import yaml

from cxrssl.__main__ import main
from tests.backbones.hub_models import RAD_DINO, hugging_face, save_hugging_face
from tests.evaluation.stand_ins import make_index, save_encoder

QUICK = [
    *("--replicates=20", "--shares=[]", "--shots=[]", "--groups=[]"),
    *("--metadata=false", "--methods=[linear]"),
]
PHANTOM = ["--data=PhantomDataModule", "--data.n_images=90", "--data.size=32"]


@pytest.fixture
def file(tmp_path):
    return save_encoder(tmp_path / "encoder.safetensors")


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index.csv"
    make_index(tmp_path).to_csv(path, index=False)
    return str(path)


def evaluated(tmp_path, *arguments, code=0):
    folder = tmp_path / "out"
    assert main(["evaluate", *arguments, f"--out={folder}", "--data.num_workers=0"]) == code
    return folder


def encoders(folder):
    return list(dict.fromkeys(pd.read_parquet(folder / "scores.parquet")["encoder"]))


def test_two_encoders_on_an_index(tmp_path, file, index, capsys):
    other = save_encoder(tmp_path / "large.safetensors", 1)
    folder = evaluated(tmp_path, "--encoder", file, f"--encoder=100k={other}", index, *QUICK)
    assert encoders(folder) == ["encoder", "100k"]
    screen = capsys.readouterr().out
    assert "72 train, 36 val, 36 test images; scores of 18 test patients" in screen
    assert "encoder (32 px)  linear" in screen
    assert "encoder (32 px) - 100k (32 px)  AUROC   linear" in screen
    assert f"Tables and figures: {folder}" in screen
    assert (folder / "comparison.parquet").exists()


def test_files_of_one_name_are_told_apart_by_their_paths(tmp_path, index):
    files = []
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        files.append(save_encoder(tmp_path / name / "encoder.safetensors", seed))
    flags = [f"--encoder={path}" for path in files]
    assert encoders(evaluated(tmp_path, *flags, index, *QUICK)) == files


def test_the_phantom_and_a_config_with_the_same_keys(tmp_path, file, capsys):
    evaluated(tmp_path, "--encoder", file, *PHANTOM, *QUICK, "--findings=[effusion]")
    first = capsys.readouterr().out
    config = {
        "encoder": [file],
        "data": {"class_path": "PhantomDataModule", "init_args": {"n_images": 90, "size": 32}},
        "findings": ["effusion"],
        "replicates": 20,
        "shares": [],
        "shots": [],
        "groups": [],
        "metadata": False,
        "methods": ["linear"],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    evaluated(tmp_path, f"--config={tmp_path / 'config.yaml'}")
    assert capsys.readouterr().out == first


def test_a_folder_of_another_library_needs_no_options(tmp_path, index, capsys):
    folder = save_hugging_face(hugging_face(), tmp_path / "rad-dino", RAD_DINO)
    out = evaluated(tmp_path, f"--encoder={folder}", index, *QUICK)
    about = json.loads((out / "evaluation.json").read_text())["encoders"]["rad-dino"]
    assert about["normalisation"] == [0.5307, 0.2583]
    assert about["arguments"]["heads"] == 3


def test_an_encoder_that_does_not_describe_itself_is_built(tmp_path, index, capsys):
    weights = tmp_path / "weights.safetensors"
    save_encoder(weights)
    flags = [
        *("--backbone=ViT", "--backbone.name=vit_tiny", "--backbone.img_size=32"),
        *("--backbone.patch_size=16", "--backbone.width=16", "--backbone.depth=1"),
        *("--backbone.heads=2", f"--backbone.weights={weights}", "--mean=0.4", "--std=0.2"),
    ]
    folder = evaluated(tmp_path, *flags, index, *QUICK)
    built = pd.read_parquet(folder / "scores.parquet").drop(columns="encoder")
    folder = evaluated(tmp_path, f"--encoder={weights}", f"--data.index={index}", *QUICK)
    described = pd.read_parquet(folder / "scores.parquet").drop(columns="encoder")
    pd.testing.assert_frame_equal(built, described)


def test_an_index_in_a_config_is_not_lost(tmp_path, file, index):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"index": index, "encoder": [file]}))
    flags = QUICK
    folder = evaluated(tmp_path, f"--config={tmp_path / 'config.yaml'}", *flags)
    assert encoders(folder) == ["encoder"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--encoder=FILE", "INDEX", "--k=0"], "k must be at least 1, got 0"),
        (["--encoder=FILE", "INDEX", "--methods=[svm]"], "Got value: svm"),
        (["--encoder=FILE", "INDEX", "--metods=[knn]"], "metods"),
        (["--encoder=FILE", "INDEX", "--findings=[fracture]"], "no label 'fracture'"),
        (["--encoder=FILE", "INDEX", "--sizes=[40]"], "40 pixels are not tiled"),
        (["--encoder=FILE", "INDEX", "--mean=0.5"], "--mean and --std belong together"),
        (["--encoder=FILE", "--encoder=FILE", "INDEX"], "names of their own"),
        (["--encoder=FILE", "INDEX", "--data.index=INDEX"], "two indexes"),
        (["--encoder=FILE", "INDEX", *PHANTOM], "PhantomDataModule takes no index"),
        (["--encoder=FILE"], "has no images: give index"),
        (["--encoder=FILE", "/nowhere.csv"], "/nowhere.csv: no such file"),
        (["--encoder=/nowhere.pt", "INDEX"], "there is no weight file /nowhere.pt"),
        (["INDEX"], "there is no encoder to evaluate"),
    ],
)
def test_bad_input_gets_a_sentence(tmp_path, file, index, capsys, flags, message):
    flags = [flag.replace("FILE", file).replace("INDEX", index) for flag in flags]
    evaluated(tmp_path, *flags, code=2)
    text = capsys.readouterr().err
    assert text.startswith("cxrssl: error: ")
    assert message in text
    assert "Traceback" not in text


def test_a_wrong_label_is_told_with_its_row(tmp_path, file, index, capsys):
    frame = pd.read_csv(index)
    frame.loc[6, "noise"] = 3
    frame.to_csv(index, index=False)
    flags = ["--data.labels=[left,noise]", f"--encoder={file}", index]
    evaluated(tmp_path, *flags, code=2)
    assert "label 'noise' is '3' in row 7" in capsys.readouterr().err


def test_help_names_the_command_and_its_keys(capsys):
    main(["--help"])
    assert "evaluate   what frozen encoders are worth" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    for flag in ("--encoder", "--backbone", "--data", "--shares", "--cache", "--out"):
        assert flag in text

"""The model card, and the command that writes it."""

import json

import pytest
import torch
import yaml

from cxrssl.__main__ import main
from cxrssl.backbones import load_encoder
from cxrssl.callbacks import EncoderFile
from cxrssl.errors import InputError
from cxrssl.exporting import Card, export_encoder
from cxrssl.exporting.provenance import read_provenance
from tests.callbacks.tiny import TinyData, TinyObjective, train
from tests.evaluation.stand_ins import save_encoder
from tests.exporting.encoders import exported_vit


def head_of(text):
    return yaml.safe_load(text.split("---")[1])


@pytest.fixture
def run(tmp_path):
    """Return the encoder of a run, with the files that a run writes."""
    folder = tmp_path / "runs" / "version_0"
    (folder / "checkpoints").mkdir(parents=True)
    path = save_encoder(folder / "checkpoints" / "encoder.safetensors")
    config = {
        "model": {"class_path": "cxrssl.objectives.DINOv2"},
        "data": {
            "class_path": "cxrssl.data.NIHChestXray14",
            "init_args": {"root": "/secret/folder", "index": "/secret/patients.csv"},
        },
        "trainer": {"precision": "bf16-mixed"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text(
        "epoch,step,loss/total,probe/knn/auroc/macro\n0,5,2.0,\n0,5,,0.61\n1,9,,0.75\n1,10,1.0,\n"
    )
    return path


def test_a_card_tells_what_the_run_tells_and_no_more(tmp_path, run, capsys):
    out = tmp_path / "encoder"
    flags = ["--card.licence=cc-by-nc-4.0", "--card.title=Our encoder", "--card.images=112120"]
    assert main(["export", "--encoder", run, "--format", "huggingface", str(out), *flags]) == 0
    printed = capsys.readouterr().out
    assert "README.md, config.json, model.safetensors, preprocessor_config.json" in printed
    assert "18 weights matched" in printed
    text = (out / "README.md").read_text()
    head = head_of(text)
    assert head["license"] == "cc-by-nc-4.0"
    assert head["library_name"] == "transformers"
    for fact in (
        "# Our encoder",
        "Not a medical device",
        "datasets: NIHChestXray14",
        "training images: 112,120",
        "objective: DINOv2",
        "precision: bf16-mixed",
        "| probe/knn/auroc/macro | 9 | 0.7500 |",
        "the mean 0.4, divided by the standard deviation 0.2",
        "The weights: cc-by-nc-4.0",
        "otherwise than in training (there: offset)",
    ):
        assert fact in text, fact
    everything = "".join(path.read_text(errors="ignore") for path in out.iterdir())
    assert "secret" not in everything
    assert str(tmp_path) not in everything
    assert load_encoder(out).normalisation == (0.4, 0.2)


def test_what_is_not_known_is_said(tmp_path):
    vit = exported_vit("plain")
    vit.normalisation = None
    out = export_encoder(vit, tmp_path / "out", "cxrssl")
    text = (out / "README.md").read_text()
    assert "No licence is stated" in text
    assert "None were measured in training." in text
    assert "- datasets: not stated" in text
    assert "the mean not stated" in text
    assert "license" not in head_of(text)


def test_a_title_cannot_break_the_head(tmp_path):
    card = Card(licence="other", licence_name='a: "b"\n---', title="x\n---\ny", authors="A\nB")
    text = (
        export_encoder(exported_vit("plain"), tmp_path / "o", card=card) / "README.md"
    ).read_text()
    assert yaml.safe_load(text[4 : text.index("\n---\n\n# x")])["license_name"] == 'a: "b"\n---'
    assert "# x --- y\n" in text
    assert "authors: A B" in text


def test_bad_cards():
    with pytest.raises(InputError, match=r"are names, not paths, got '/data/nih'"):
        Card(datasets=["/data/nih"])
    with pytest.raises(InputError, match=r"need card\.licence"):
        Card(licence_name="ours")
    with pytest.raises(InputError, match="at least 1, got 0"):
        Card(images=0)


def test_a_run_writes_how_far_it_was(tmp_path):
    train(TinyObjective(), TinyData(), [EncoderFile()], tmp_path)
    provenance = read_provenance(tmp_path / "encoder.safetensors", {"objective": "Tiny"})
    assert provenance.recipe["objective"] == "Tiny"
    assert int(provenance.recipe["steps"]) > 0
    assert provenance.recipe["precision"] == "32-true"
    # The checkpoint beside it is of the same run.
    assert read_provenance(tmp_path / "last.ckpt", None).recipe["steps"]


def test_broken_files_of_other_programs_are_no_provenance(tmp_path):
    (tmp_path / "config.yaml").write_text("{")
    assert read_provenance(tmp_path / "weights.pth", None).recipe == {}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["OUT", "--format=onnx"], "onnx"),
        (["OUT", "--card.datasets=[/data]"], "names, not paths"),
        (["OUT", "--encoder=nowhere.pth"], "there is no weight file nowhere.pth"),
        ([], "out"),
    ],
)
def test_bad_arguments(tmp_path, flags, reason, capsys):
    encoder = save_encoder(tmp_path / "encoder.safetensors")
    words = [str(tmp_path / "out") if word == "OUT" else word for word in flags]
    assert main(["export", "--encoder", encoder, *words]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    assert "--card.licence" in capsys.readouterr().out


def test_weights_of_a_bfloat16_encoder_stay_so(tmp_path):
    vit = exported_vit("plain").bfloat16()
    out = export_encoder(vit, tmp_path / "out", "huggingface")
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"
    back = load_encoder(out)
    expected = vit.state_dict()
    for name, value in back.state_dict().items():
        assert torch.equal(value, expected[name].float()), name

import json

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from safetensors import safe_open
from safetensors.torch import load_file

from cxrssl.callbacks import EncoderFile
from tests.callbacks.tiny import TinyData, TinyObjective, train


def test_stands_beside_the_checkpoints_and_describes_itself(tmp_path):
    objective = TinyObjective()
    callbacks = [EncoderFile(), ModelCheckpoint(tmp_path / "checkpoints")]
    train(objective, TinyData(), callbacks, tmp_path, enable_checkpointing=True)
    path = tmp_path / "checkpoints" / "encoder.safetensors"
    weights, own = load_file(path), objective.encoder.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(weights[name], own[name]) for name in own)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["cxrssl"]) == objective.describe()
    assert len(list(path.parent.iterdir())) == 2  # one checkpoint and no temporary file


def test_stands_in_the_run_folder_without_checkpoints(tmp_path):
    train(TinyObjective(), TinyData(), [EncoderFile()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.safetensors"]


def test_written_once_a_step(tmp_path, monkeypatch):
    from cxrssl.callbacks import encoder_file

    steps = []
    save = encoder_file.save_file

    def noted(weights, path, metadata):
        steps.append(path.parent.name)
        save(weights, path, metadata)

    monkeypatch.setattr(encoder_file, "save_file", noted)
    callbacks = [EncoderFile(), ModelCheckpoint(tmp_path / "a", save_last=True)]
    train(TinyObjective(), TinyData(), callbacks, tmp_path, enable_checkpointing=True)
    assert steps == ["a", "a"]  # two epochs


def test_an_interrupted_write_leaves_the_file_before(tmp_path, monkeypatch):
    from cxrssl.callbacks import encoder_file

    path = tmp_path / "encoder.safetensors"
    path.write_bytes(b"before")

    def killed(weights, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder_file, "save_file", killed)
    with pytest.raises(SystemExit, match="1"):
        train(TinyObjective(), TinyData(), [EncoderFile()], tmp_path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_module_without_encoder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.delattr(TinyObjective, "describe")
    train(TinyObjective(), TinyData(), [EncoderFile()], tmp_path)
    assert list(tmp_path.iterdir()) == []


class Moving(Callback):
    """Changes the weights right after every checkpoint."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        pl_module.encoder.layer.weight.data.zero_()


def test_holds_a_copy(tmp_path):
    objective = TinyObjective()
    callbacks = [EncoderFile(), Moving(), ModelCheckpoint(tmp_path)]
    train(objective, TinyData(), callbacks, tmp_path, enable_checkpointing=True, max_epochs=1)
    assert load_file(tmp_path / "encoder.safetensors")["layer.weight"].abs().sum() > 0

"""Whatever is given as a checkpoint or as weights: read safely, or refused with a sentence."""

import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import save_file

from cxrssl.backbones import ViT, load_backbone_weights, load_encoder
from cxrssl.errors import InputError
from cxrssl.objectives.resuming import check_optimizers, check_weights
from cxrssl.objectives.stage import read_stage
from cxrssl.run_files import CheckpointFiles
from cxrssl.tasks import prepare_encoder
from tests.objectives.siamese_training import small_dinov2, small_vicreg


class Payload:
    """What a malicious file would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def cut(path):
    torch.save({"state_dict": {"w": torch.zeros(1000)}, "loops": {}}, path)
    path.write_bytes(path.read_bytes()[:2000])


def deep_link(path):
    path.symlink_to(path.parent / "nowhere")


FILES = {
    "missing": (lambda path: None, "there is no"),
    "dangling": (deep_link, "there is no"),
    "folder": (lambda path: path.mkdir(), "but a folder|holds no weights"),
    "empty": (lambda path: path.write_bytes(b""), "is an empty file"),
    "text": (lambda path: path.write_text("epoch,loss\n1,2\n"), "is a text file"),
    "cut": (cut, "is a file that was cut off"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file"),
    "noise": (lambda path: path.write_bytes(bytes(range(256))), "of a kind that is not known"),
    "safetensors": (lambda path: save_file({"w": torch.zeros(2)}, path), "is a safetensors file"),
}
READERS = {
    "--ckpt_path": lambda path: CheckpointFiles().load_checkpoint(path),
    "init_from": lambda path: read_stage(str(path)),
    "weights": lambda path: load_backbone_weights(ViT("vit_tiny", img_size=32), path),
    "load_encoder": load_encoder,
    "encoder": lambda path: prepare_encoder(str(path)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", FILES)
def test_a_broken_or_foreign_file_is_named(tmp_path, kind, reader):
    path = tmp_path / "file.ckpt"
    make, sentence = FILES[kind]
    make(path)
    with pytest.raises(InputError, match=sentence) as caught:
        READERS[reader](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("save", [torch.save, save_pickle])
@pytest.mark.parametrize("variable", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_a_payload_does_not_run(tmp_path, monkeypatch, save, reader, variable):
    if variable is not None:
        monkeypatch.setenv(variable, "1")
    path = tmp_path / "file.ckpt"
    save({"state_dict": {"w": torch.zeros(1)}, "loops": Payload(tmp_path / "ran")}, path)
    with pytest.raises(InputError, match=r"more than tensors and plain data.*foreign code"):
        READERS[reader](path)
    assert not (tmp_path / "ran").exists()


def test_a_caller_cannot_ask_for_objects(tmp_path):
    torch.save({"state_dict": {}, "loops": Payload(tmp_path / "ran")}, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="foreign code"):
        CheckpointFiles().load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{"model": {}}, [1, 2], {"state_dict": {}}])
def test_weights_are_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"no checkpoint that a run can go on from.*init_from"):
        CheckpointFiles().load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"cxrssl": "{"}, "is no JSON"),
        ({"cxrssl": "{}"}, "names no backbone"),
        ({"cxrssl": '{"backbone": 3}'}, "names no backbone"),
        ({"cxrssl": '{"backbone": {"class": "Swin", "arguments": {}}}'}, "holds a Swin"),
        (
            {"cxrssl": '{"version": "9", "backbone": {"class": "ViT", "arguments": {"moe": 1}}}'},
            "cannot build: .*moe.*version 9",
        ),
        ({}, "holds no ViT that is known here"),
    ],
)
def test_an_encoder_that_describes_itself_otherwise(tmp_path, metadata, sentence):
    save_file({"w": torch.zeros(2)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=sentence):
        load_encoder(tmp_path / "a.safetensors")


def test_a_safetensors_file_that_was_cut_off(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(2)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="no readable safetensors file"):
        load_encoder(path)
    path.write_bytes(struct.pack("<Q", 2**40) + b"{")
    with pytest.raises(InputError, match="no readable safetensors file"):
        load_encoder(path)


def checkpoint(objective, **run):
    return {
        "state_dict": objective.state_dict(),
        "cxrssl_run": {"module": type(objective).__name__, **run},
    }


def test_weights_of_another_run():
    own = small_dinov2()
    check_weights(own, "DINOv2", checkpoint(small_dinov2()), "a.ckpt")
    with pytest.raises(InputError, match=r"a\.ckpt is of a run of VICReg, expected .* of DINOv2"):
        check_weights(own, "DINOv2", checkpoint(small_vicreg()), "a.ckpt")
    with pytest.raises(InputError, match="of Lightning, but not of a run of cxrssl"):
        check_weights(own, "DINOv2", {"state_dict": own.state_dict()}, "a.ckpt")
    other = checkpoint(small_dinov2())
    del other["state_dict"]["mask_token"]
    other["state_dict"] |= {"backbone.vit.norm.weight": torch.zeros(2, 3), "surplus": torch.ones(1)}
    with pytest.raises(InputError, match=r"of another shape: .*2 x 3, here.*missing.*surplus"):
        check_weights(own, "DINOv2", other, "a.ckpt")


def stepped(make):
    weights = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))]
    optimizer = make(weights)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer


def adamw(weights):
    return torch.optim.AdamW([{"params": [weight]} for weight in weights])


def test_an_optimiser_state_of_another_recipe():
    own = stepped(adamw)
    check_optimizers([own], [own.state_dict()], "a.ckpt")
    with pytest.raises(InputError, match="without the optimiser's state"):
        check_optimizers([own], [], "a.ckpt")
    for other, reason in (
        (torch.optim.AdamW, r"groups of \[2\] weights, here of \[1, 1\]"),
        (torch.optim.SGD, "another, here AdamW"),
        (lambda weights: adamw(weights[::-1]), "exp_avg of 3, here of 2"),
    ):
        with pytest.raises(InputError, match=reason):
            check_optimizers([own], [stepped(other).state_dict()], "a.ckpt")

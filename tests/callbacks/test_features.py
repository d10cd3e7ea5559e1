from types import SimpleNamespace

import torch
from torch import distributed as dist

from cxrssl.callbacks.features import embed_batches


def pretend_two_processes(monkeypatch, other, longest):
    """Make this process the first of two, of which the second holds other rows."""

    def all_gather_object(parts, rows):
        parts[:] = [rows, other]

    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", all_gather_object)
    monkeypatch.setattr(dist, "all_reduce", lambda length, op: length.fill_(longest))


def test_every_process_runs_the_encoder_equally_often(monkeypatch):
    calls = []

    def embed(images, pooling="class"):
        calls.append(len(images))
        return images.flatten(1)

    precision = SimpleNamespace(forward_context=torch.no_grad, convert_input=lambda x: x)
    trainer = SimpleNamespace(
        precision_plugin=precision,
        world_size=2,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    loader = [
        {
            "image": torch.ones(2, 1, 1, 1),
            "labels": torch.ones(2, 1),
            "image_number": torch.arange(2) + start,
        }
        for start in (0, 2)
    ]
    pretend_two_processes(monkeypatch, {}, 5)
    rows = embed_batches(trainer, SimpleNamespace(embed=embed), loader)
    assert calls == [2] * 5
    assert rows["image_number"].tolist() == [0, 1, 2, 3]

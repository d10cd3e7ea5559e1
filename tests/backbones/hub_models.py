"""Small random models of timm and transformers, saved in the layouts of their hubs."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

RAD_DINO = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 56},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 56, "width": 56},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5307, 0.5307, 0.5307],
    "image_std": [0.2583, 0.2583, 0.2583],
    "do_convert_rgb": True,
}
"""RAD-DINO's preprocessor_config.json, at another size."""


def shuffle(model: nn.Module, seed: int = 0) -> nn.Module:
    """Make every weight random, so that none is without effect, and return the model."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=rng)
            scaling = parameter.ndim < 2 and not name.endswith("bias")
            parameter.copy_(1 + 0.2 * noise if scaling else 0.1 * noise)
    return model.eval()


def hugging_face(registers: int = 0, **options: Any) -> Any:
    """Return a small Dinov2Model, or Dinov2WithRegistersModel."""
    transformers = pytest.importorskip("transformers")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    defaults = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 56,
        "patch_size": 14,
    }
    options = defaults | options
    if registers:
        config = transformers.Dinov2WithRegistersConfig(num_register_tokens=registers, **options)
        return shuffle(transformers.Dinov2WithRegistersModel(config))
    return shuffle(transformers.Dinov2Model(transformers.Dinov2Config(**options)))


def save_hugging_face(model: Any, folder: Path, preprocessor: dict[str, Any] | None) -> str:
    """Save a model as its hub does and return the folder."""
    model.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return str(folder)


def cache_snapshot(cache: Path, repository: str, files: Path) -> None:
    """Put the files of a folder where Hugging Face's cache would have them.

    Args:
        cache: The cache.
        repository: ``organisation/name``.
        files: Folder whose files are copied.
    """
    place = cache / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(snapshot.name)
    for file in files.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())

"""Images whose finding can be seen, their index, and small encoders."""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from cxrssl.backbones import ViT
from cxrssl.data import CXRDataModule
from cxrssl.evaluation import EvaluationOptions

SPLITS = (72, 36, 36)
"""Images of train, val and test."""


def small_vit(seed: int = 0) -> ViT:
    torch.manual_seed(seed)
    return ViT("vit_tiny", img_size=32, patch_size=16, width=16, depth=1, heads=2).eval()


def save_encoder(path: Path, seed: int = 0) -> str:
    """Save a small encoder as a run does."""
    backbone = small_vit(seed)
    about = {
        "backbone": {"class": "ViT", "arguments": backbone.arguments},
        "encoder": "encoder",
        "normalisation": {"mean": 0.4, "std": 0.2},
    }
    save_file(backbone.state_dict(), path, metadata={"cxrssl": json.dumps(about)})
    return str(path)


def make_index(folder: Path) -> pd.DataFrame:
    """Write images and return their index, two images a patient, frontal and lateral.

    The finding ``left`` is a bright left half; ``noise`` cannot be seen.
    """
    rng = np.random.default_rng(0)
    n = sum(SPLITS)
    left, noise = (rng.random(n) < 0.4 for _ in range(2))
    paths = [str(folder / f"{number:03d}.png") for number in range(n)]
    for path, bright in zip(paths, left, strict=True):
        image = rng.integers(0, 160, (32, 32), np.uint8)
        image[:, :16] += np.uint8(60 * bright)
        cv2.imwrite(path, image)
    return pd.DataFrame(
        {
            "path": paths,
            "patient_id": [f"p{number // 2}" for number in range(n)],
            "view_position": ["PA", "LATERAL"] * (n // 2),
            "split": np.repeat(["train", "val", "test"], SPLITS),
            "sex": np.repeat(rng.choice(["F", "M"], n // 2), 2),
            "age": np.repeat(rng.integers(20, 90, n // 2), 2),
            "left": left.astype(int),
            "noise": noise.astype(int),
        }
    )


def data_of(frame: pd.DataFrame, folder: Path, **arguments: object) -> CXRDataModule:
    """Return a data module of an index."""
    path = folder / "index.csv"
    frame.to_csv(path, index=False)
    return CXRDataModule(str(path), num_workers=0, batch_size=48, **arguments)


def quick(**options: object) -> EvaluationOptions:
    """Return options of a quick evaluation."""
    defaults = {"replicates": 20, "shares": [], "shots": [], "metadata": False, "groups": []}
    return EvaluationOptions(**(defaults | {"methods": ["linear"]} | options))

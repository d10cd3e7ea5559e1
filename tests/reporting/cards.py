"""Images with masks, small encoders with the folders of their runs, and quick cards of them."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from lightning import Trainer
from safetensors.torch import save_file

from cxrssl.backbones import ViT, load_encoder
from cxrssl.data import CXRDataModule
from cxrssl.heads import GLoRI, LinearDecoder, Predictor
from cxrssl.objectives import WorldModel
from cxrssl.reporting import ReportOptions, report_card
from cxrssl.reporting.report import Described, gather
from cxrssl.tasks import Classification, Segmentation
from cxrssl.views import SupervisedView, WorldViews
from tests.evaluation.stand_ins import data_of, make_index, quick
from tests.objectives.training import quiet_trainer

ARGUMENTS = {
    "name": "vit_tiny",
    "img_size": 32,
    "patch_size": 8,
    "width": 16,
    "depth": 1,
    "heads": 2,
}
OPTIONS = ReportOptions(images=3, neighbours=2, world_images=5)


def labelled_images(folder: Path):
    """Return an index of images with masks, of patients with names that no page should hold."""
    frame = make_index(folder)
    masks = folder / "masks"
    masks.mkdir()
    for path, left in zip(frame["path"], frame["left"], strict=True):
        mask = np.zeros((32, 32), np.uint8)
        mask[:, :16] = 255 * left
        cv2.imwrite(str(masks / Path(path).name), mask)
    frame["mask/bright"] = [str(masks / Path(path).name) for path in frame["path"]]
    return frame.assign(patient_id="SURNAME-" + frame["patient_id"])


def save_encoder(path: Path, seed: int = 0, **changes: object) -> str:
    """Save a small encoder that describes itself."""
    torch.manual_seed(seed)
    backbone = ViT(**{**ARGUMENTS, **changes})
    about = {
        "backbone": {"class": "ViT", "arguments": backbone.arguments},
        "encoder": "encoder",
        "normalisation": {"mean": 0.4, "std": 0.2},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(backbone.state_dict(), path, metadata={"cxrssl": json.dumps(about)})
    return str(path)


def card(frame, folder: Path, encoders, options=OPTIONS, **evaluation) -> str:
    """Return the page of encoders given by their files."""
    described = {name: Described(load_encoder(file), file) for name, file in encoders.items()}
    return report_card(described, data_of(frame, folder), quick(**evaluation), options)


def topic(frame, folder: Path, file: str, options=OPTIONS, *, head=None, decoder=None, **quickly):
    """Return what the sections of one encoder's card are made of."""
    described = {"ours": Described(load_encoder(file), file, head, decoder)}
    return gather(described, data_of(frame, folder), quick(**quickly), options)


def trained(folder: Path, module, settings, data: CXRDataModule) -> str:
    """Train a module for a step and save it as a run does; return its checkpoint."""
    trainer: Trainer = quiet_trainer(max_steps=1, limit_val_batches=1)
    trainer.fit(module, datamodule=data)
    (folder / "checkpoints").mkdir(parents=True)
    path = folder / "checkpoints" / "last.ckpt"
    trainer.save_checkpoint(path)
    config = {
        "seed_everything": 7,
        "trainer": {"max_epochs": 3},
        "model": settings,
        "data": {"class_path": "cxrssl.data.CXRDataModule", "init_args": {"root": "/secret/root"}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.csv").write_text("epoch,loss,step\n0,2.5,0\n0,1.5,9\n")
    return str(path)


def glori(folder: Path, encoder: str, data: CXRDataModule) -> str:
    """Return the checkpoint of a GLoRI head on an encoder."""
    head = {"blocks": 1, "width": 8, "heads": 2, "hidden": 8}
    task = Classification(encoder, ["left", "noise"], lambda *sizes: GLoRI(*sizes, **head))
    data.views = task.views
    settings = {
        "class_path": "Classification",
        "init_args": {
            "encoder": "/elsewhere/encoder.safetensors",
            "findings": ["left", "noise"],
            "head": {"class_path": "GLoRI", "init_args": head},
        },
    }
    return trained(folder, task, settings, data)


def decoder(folder: Path, encoder: str, data: CXRDataModule) -> str:
    """Return the checkpoint of a linear decoder on an encoder."""
    view = {"image_size": 32, "mean": 0.4, "std": 0.2}
    task = Segmentation(encoder, ["bright"], LinearDecoder, views=SupervisedView(**view))
    data.views = task.views
    settings = {
        "class_path": "Segmentation",
        "init_args": {
            "encoder": encoder,
            "structures": ["bright"],
            "decoder": {"class_path": "LinearDecoder"},
            "views": {"class_path": "SupervisedView", "init_args": view},
        },
    }
    return trained(folder, task, settings, data)


def world(folder: Path, data: CXRDataModule) -> str:
    """Return the encoder file of a world model's run."""
    predictor = {"width": 8, "depth": 1, "heads": 2}
    arguments = ARGUMENTS | {"class_token": False, "position": "sincos", "init": "jepa"}
    views = {"image_size": 32, "patch_size": 8, "scale": [0.5, 1.0], "min_keep": 2}
    torch.manual_seed(0)
    objective = WorldModel(
        ViT(**arguments),
        views=WorldViews(**views),
        predictor=lambda *sizes: Predictor(*sizes, **predictor),
    )
    data.views = objective.views
    settings = {
        "class_path": "WorldModel",
        "init_args": {
            "backbone": {"class_path": "ViT", "init_args": {**arguments, "weights": "gone.pth"}},
            "views": {"class_path": "WorldViews", "init_args": views},
            "predictor": {"class_path": "Predictor", "init_args": predictor},
        },
    }
    return trained(folder, objective, settings, data)

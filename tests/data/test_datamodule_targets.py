import re
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint

from cxrssl.__main__ import main
from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.targets import MaskRules
from cxrssl.errors import InputError
from tests.data.labelled import (
    BROKEN,
    FINDINGS,
    LABELLED,
    UNLABELLED,
    N,
    data_module,
    names,
    rows_of,
    square,
    views,
    write_labelled,
)
from tests.data.stand_ins import DrawViews, Recorder, quiet_trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_labelled(folder)
    return folder


# Which images are shown


def test_images_without_any_label_are_left_out_where_labels_are_wanted(tmp_path):
    write_labelled(tmp_path, nodule=UNLABELLED)
    one = data_module(tmp_path, ("nodule",))
    for split, (first, last) in {"train": (0, 24), "val": (24, 30), "test": (30, 36)}.items():
        expected = [number for number in LABELLED if first <= number < last]
        assert names(one.shown_rows(split)) == expected
        assert len(one.rows(split)) == last - first
    assert len(one.shown_rows("all")) == N
    # One known label of two is enough; views without targets are shown all.
    assert len(data_module(tmp_path).shown_rows("train")) == 24
    assert len(data_module(tmp_path, views=DrawViews()).shown_rows("train")) == 24


def test_numbers_are_those_of_the_images_that_are_shown(tmp_path):
    write_labelled(tmp_path, nodule=UNLABELLED)
    data = data_module(tmp_path, ("nodule",))
    batches = list(data.label_dataloader("train"))
    numbers = rows_of(batches, "image_number")
    assert numbers.tolist() == list(range(22))
    paths = data.describe_images(numbers.tolist())
    assert [int(path[-7:-4]) for path in paths] == LABELLED[:22]
    assert data.image_name(1) == paths[1]
    assert data.image_name(1).endswith("003.png")
    assert data.image_name(1, "val").endswith("026.png")
    assert data.image_name(1, "all").endswith("001.png")
    assert torch.equal(data.images([1, 5]), rows_of(batches, "image")[[1, 5]])
    assert rows_of(batches, "labels").flatten().tolist() == [n % 2 for n in LABELLED[:22]]
    probe = list(data.probe_dataloader("train"))
    assert torch.equal(rows_of(probe, "image_number"), numbers)
    assert torch.equal(rows_of(probe, "image"), rows_of(batches, "image"))


def test_every_loader_shows_targets(folder):
    data = data_module(folder, views=views(FINDINGS, ("heart",), True))
    train = list(data.train_dataloader())
    assert sorted(rows_of(train, "image_number").tolist()) == list(range(24))
    for loader, count in ((data.val_dataloader(), 6), (data.test_dataloader(), 6)):
        batches = list(loader)
        assert rows_of(batches, "masks").shape == (count, 1, 16, 16)
        assert rows_of(batches, "labels").shape == (count, 2)
    first = next(iter(data.label_dataloader("test", (1, 2))))
    assert first["text"] == ["Image 31.", "Image 33.", "Image 35."]
    # Outside training, the view is the deterministic one.
    expected = data.views.eval_view().with_masks(
        cv2.imread(str(folder / "031.png"), cv2.IMREAD_GRAYSCALE), square(31)[None]
    )
    assert torch.equal(first["image"][0], expected["image"])
    assert torch.equal(first["masks"][0], expected["masks"])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ((("mass",),), r"no label 'mass'; it has 'nodule', 'edema'$"),
        (((), ("lungs",)), r"no mask 'lungs'; it has 'heart'$"),
    ],
)
def test_targets_the_index_lacks(folder, targets, message):
    data = data_module(folder, views=views(*targets))
    with pytest.raises(InputError, match=message):
        data.train_dataloader()


def test_reports_the_index_lacks(tmp_path):
    write_labelled(tmp_path)
    pd.read_csv(tmp_path / "index.csv").drop(columns="text").to_csv(tmp_path / "index.csv")
    with pytest.raises(InputError, match=r"^the index has no column 'text'"):
        data_module(tmp_path, views=views(text=True)).train_dataloader()


def test_a_split_without_a_labelled_image(tmp_path):
    columns = {"nodule": [0] * 24 + [None] * 12, "text": [""] * 24 + ["x"] * 12}
    columns["mask/heart"] = ["-1"] * 30 + [None] * 6
    write_labelled(tmp_path, **columns)
    data = data_module(tmp_path, ("nodule",))
    assert len(list(data.train_dataloader())) == 6
    with pytest.raises(InputError, match=r"of the split 'val' has any label of nodule: nothing"):
        data.val_dataloader()
    both = data_module(tmp_path, views=views(("nodule", "edema"), ("heart",), True))
    message = "'test' has any label of nodule, edema and any mask of heart and a report: nothing"
    with pytest.raises(InputError, match=message):
        both.test_dataloader()
    with pytest.raises(InputError, match=r"'train' has any label .* and a report"):
        both.train_dataloader()


# Fewer training images


@pytest.mark.parametrize(("subset", "size"), [(0.25, 6), (9, 9), (1.0, 24)])
def test_a_subset_is_of_training_images_alone(folder, subset, size):
    whole, data = data_module(folder), data_module(folder, subset=subset)
    rows = data.shown_rows("train")
    assert size <= len(rows) < size + 2
    patients = Counter(whole.shown_rows("train")["patient_id"])
    assert all(patients[name] == count for name, count in Counter(rows["patient_id"]).items())
    assert len(rows_of(data.label_dataloader("train"), "image_number")) == len(rows)
    assert len(rows_of(data.probe_dataloader("train"), "image_number")) == len(rows)
    assert len(data.rows("train")) == 24
    for split in ("val", "test", "all"):
        pd.testing.assert_frame_equal(data.shown_rows(split), whole.shown_rows(split))
    assert names(rows) == [int(path[-7:-4]) for path in data.describe_images(range(len(rows)))]


def test_subsets_are_nested_and_drawn_by_their_seed(folder):
    sizes = [names(data_module(folder, subset=n).shown_rows("train")) for n in (4, 8, 0.5)]
    assert set(sizes[0]) < set(sizes[1]) < set(sizes[2])
    other = data_module(folder, subset=8, subset_seed=1).shown_rows("train")
    assert names(other) != sizes[1]
    # The seed of the order does not change it.
    assert names(data_module(folder, subset=8, seed=6).shown_rows("train")) == sizes[1]


def test_a_subset_is_taken_of_labelled_images(tmp_path):
    write_labelled(tmp_path, nodule=[None] * 12 + [1] * 24)
    data = data_module(tmp_path, ("nodule",), subset=1.0)
    assert names(data.shown_rows("train")) == list(range(12, 24))
    with pytest.raises(InputError, match="a number of images up to 12, got 13"):
        data_module(tmp_path, ("nodule",), subset=13).train_dataloader()


def test_a_subset_works_without_targets(folder):
    data = data_module(folder, views=DrawViews(), subset=8)
    assert len(rows_of(data.train_dataloader(), "image_number")) == 8
    assert len(rows_of(data.predict_dataloader(), "image_number")) == N


@pytest.mark.parametrize("text", ["1", "20", "0.25", "1.0"])
def test_a_subset_in_a_config_is_a_number_or_a_share_as_it_is_written(text):
    parser = ArgumentParser()
    parser.add_class_arguments(CXRDataModule, "data", skip={"views"})
    value = parser.parse_args([f"--data.subset={text}"]).data.subset
    assert value == float(text)
    assert isinstance(value, float) == ("." in text)


# Batches, workers and resumed runs


@pytest.mark.parametrize("stage", ["train", "test"])
def test_workers_change_nothing(folder, stage):
    made = views(FINDINGS, ("heart",), True)
    batches = []
    for workers in (0, 2):
        data = data_module(folder, views=made, num_workers=workers)
        batches.append(list(getattr(data, f"{stage}_dataloader")()))
    assert len(batches[0]) == len(batches[1]) > 0
    for alone, shared in zip(*batches, strict=True):
        assert alone.keys() == shared.keys()
        for name, value in alone.items():
            same = torch.equal if isinstance(value, torch.Tensor) else list.__eq__
            assert same(value, shared[name]), name


class TargetRecorder(Recorder):
    """Keeps the numbers, images and labels of each training batch."""

    def training_step(self, batch, batch_idx):
        self.shown.append(
            (batch["image_number"].tolist(), batch["image"].sum().item(), batch["labels"].tolist())
        )
        return self.weight.sum()


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_with_targets_goes_on_with_the_next_batch(tmp_path):
    write_labelled(tmp_path, nodule=UNLABELLED)

    def fit(checkpoint=None, **options):
        model = TargetRecorder()
        data = data_module(tmp_path, ("nodule",))
        quiet_trainer(**options).fit(model, data, ckpt_path=checkpoint)
        return model.shown

    folder = tmp_path / "checkpoints"
    saving = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=3)
    whole = fit(callbacks=[saving], enable_checkpointing=True)
    assert len(whole) == 15
    for step in (3, 6, 12):
        checkpoint = folder / f"step={step}.ckpt"
        assert torch.load(checkpoint, weights_only=True)["CXRDataModule"]["n_images"] == 22
        assert fit(checkpoint) == whole[step:]
    data = data_module(tmp_path, ("edema",))
    with pytest.warns(UserWarning, match="made with n_images 22, this run has 24"):
        quiet_trainer().fit(TargetRecorder(), data, ckpt_path=folder / "step=3.ckpt")


def test_corrupt_images_of_a_task_are_named_by_their_file(tmp_path):
    write_labelled(tmp_path, nodule=UNLABELLED)
    (tmp_path / "004.png").write_bytes(BROKEN)
    data = data_module(tmp_path, ("nodule",))
    with pytest.warns(UserWarning, match=r"1 of 36 images .*\n.*004\.png"):
        quiet_trainer(max_epochs=1).fit(TargetRecorder(), data)


def test_masks_of_run_lengths_follow_the_rules(tmp_path):
    runs = "10 4 20 4"  # absolute starts, column by column, in a frame of 24 x 24
    write_labelled(tmp_path, **{"mask/heart": [runs] * N})
    rules = MaskRules(format="absolute", frame=(24, 24))
    data = data_module(tmp_path, views=views(structures=("heart",)), masks=rules)
    masks = data.make_masks(data.shown_rows("test"), ["heart"])
    assert masks.read(2, (24, 24)).sum() == 8
    assert data.structures == ["heart"]


def config(folder, index, workers):
    """Write a segmentation run on an index and return its file."""
    encoder = {"name": "vit_tiny", "img_size": 32, "width": 24, "depth": 2, "heads": 2}
    content = {
        "model": {
            "class_path": "Segmentation",
            "init_args": {
                "encoder": {"class_path": "ViT", "init_args": encoder},
                "structures": ["heart"],
                "decoder": {"class_path": "LinearDecoder"},
            },
        },
        "data": {
            "class_path": "CXRDataModule",
            "init_args": {"index": str(index), "batch_size": 4, "num_workers": workers},
        },
        "trainer": {
            "max_steps": 1,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "default_root_dir": str(folder / "run"),
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_of_another_size_stops_the_command_with_a_sentence(tmp_path, capsys, workers):
    write_labelled(tmp_path)
    for number in range(24):
        cv2.imwrite(str(tmp_path / f"{number:03d}_heart.png"), np.zeros((9, 9), np.uint8))
    assert main(["fit", "--config", config(tmp_path, tmp_path / "index.csv", workers)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"cxrssl: error: mask of 'heart' of image \d+: .*_heart\.png has 9 x 9 pixels .*, its "
        r"image 24 x 24: resize .*",
        error,
    )

import re

import cv2
import numpy as np
import pytest
import torch

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.index import load_index
from cxrssl.data.loader import plan_loader
from cxrssl.data.masks import MaskSource
from cxrssl.data.sampler import BatchPlan, FixedBatchSampler
from cxrssl.data.sources import ImageFiles
from cxrssl.data.targets import TargetTable
from cxrssl.data.task_dataset import TaskDataset
from cxrssl.errors import InputError
from cxrssl.views import PairViews
from cxrssl.views.targets import Targets
from tests.data.labelled import BROKEN, square, views, write_labelled

FINDINGS = ("nodule", "edema")
SEED = 9


def dataset(folder, train=True, **options):
    """Return a data set of all targets of the images that `write_labelled` wrote."""
    rows = load_index(folder / "index.csv")
    made = views(FINDINGS, ("heart",), True, **options)
    masks = MaskSource({"heart": rows["mask/heart"].tolist()}, root=str(folder))
    table = TargetTable(rows, made.targets, masks)
    view = made if train else made.eval_view()
    return TaskDataset(ImageFiles(rows["path"]), table, view, SEED, train=train)


def plan(*images, epoch=2):
    return BatchPlan(epoch, 3, 0, np.array(images))


def image(number):
    return np.where(square(number) == 1, 255, number).astype(np.uint8)


def test_a_batch_is_made_from_the_documented_streams(tmp_path):
    write_labelled(tmp_path)
    batch = dataset(tmp_path)[plan(7, 3)]
    for place, number in enumerate((7, 3)):
        rng = np.random.default_rng((SEED, 2, number))
        sample = views().with_masks(image(number), square(number)[None], rng)
        assert torch.equal(batch["image"][place], sample["image"])
        assert torch.equal(batch["masks"][place], sample["masks"])
    assert batch["image"].shape == (2, 1, 16, 16)
    assert batch["masks"].shape == (2, 1, 16, 16)
    assert batch["masks"].dtype == torch.uint8
    assert batch["labels"].tolist() == [[1, 0], [1, 1]]
    assert batch["text"] == ["Image 7.", "Image 3."]
    assert batch["image_number"].tolist() == [7, 3]
    assert batch["readable"].tolist() == [True, True]
    assert batch["failures"] == []
    other = dataset(tmp_path)[plan(7, 3, epoch=3)]
    assert not torch.equal(other["image"], batch["image"])


def test_image_and_masks_are_seen_under_one_geometry(tmp_path):
    write_labelled(tmp_path)
    strong = {"scale": (0.4, 1.0), "elastic": 0.02, "photometry": None, "mean": 0.0, "std": 1.0}
    batch = dataset(tmp_path, **strong)[plan(*range(24))]
    bright = batch["image"][:, 0] > 0.55
    inside = batch["masks"][:, 0] == 1
    assert (bright == inside).float().mean() > 0.96
    assert inside.any((1, 2)).all()
    # Each view has a geometry of its own: paired with another's masks they agree far less.
    assert (bright == inside.roll(1, 0)).float().mean() < 0.8


def test_a_corrupt_image_is_replaced_by_its_neighbour_with_its_own_targets(tmp_path):
    write_labelled(tmp_path)
    whole = dataset(tmp_path)[plan(0, 4, 2)]
    (tmp_path / "004.png").write_bytes(BROKEN)
    batch = dataset(tmp_path)[plan(0, 4, 2)]
    # Image 5 takes the place of image 4, with the draws of image 4.
    rng = np.random.default_rng((SEED, 2, 4))
    sample = views().with_masks(image(5), square(5)[None], rng)
    assert torch.equal(batch["image"][1], sample["image"])
    assert torch.equal(batch["masks"][1], sample["masks"])
    assert batch["labels"].tolist() == [[0, 1], [1, 0], [0, 0]]
    assert batch["text"] == ["Image 0.", "Image 5.", "Image 2."]
    assert batch["image_number"].tolist() == [0, 5, 2]
    assert batch["readable"].all()
    for name in ("image", "masks", "labels"):
        assert torch.equal(batch[name][[0, 2]], whole[name][[0, 2]])
    ((number, message),) = batch["failures"]
    assert number == 4
    assert "004.png" in message


def test_a_corrupt_image_keeps_its_place_in_evaluation(tmp_path):
    write_labelled(tmp_path)
    whole = dataset(tmp_path, train=False)
    expected = whole[plan(3, 4, 5)]
    (tmp_path / "004.png").write_bytes(BROKEN)
    batch = whole[plan(3, 4, 5)]
    assert (batch["image"][1] == 0).all()
    assert (batch["masks"][1] == 255).all()
    assert batch["labels"][1].isnan().all()
    assert batch["image_number"].tolist() == [3, 4, 5]
    assert batch["readable"].tolist() == [True, False, True]
    assert [number for number, _ in batch["failures"]] == [4]
    for name in ("image", "masks", "labels"):
        assert torch.equal(batch[name][[0, 2]], expected[name][[0, 2]])
    # What was read once is known the next time.
    (tmp_path / "004.png").write_bytes((tmp_path / "003.png").read_bytes())
    assert torch.equal(whole[plan(4)]["labels"], expected["labels"][[1]])


@pytest.mark.parametrize("train", [True, False])
def test_a_corrupt_mask_is_as_a_corrupt_image(tmp_path, train):
    write_labelled(tmp_path)
    (tmp_path / "004_heart.png").write_bytes(BROKEN)
    batch = dataset(tmp_path, train)[plan(4, 6)]
    assert batch["image_number"].tolist() == [5 if train else 4, 6]
    assert batch["readable"].tolist() == [train, True]
    assert batch["labels"][0].isnan().any() == (not train)
    assert (batch["masks"][0] == 255).all() == (not train)
    assert (batch["image"][0] == 0).all() == (not train)
    ((number, message),) = batch["failures"]
    assert number == 4
    assert "004_heart.png" in message


def test_a_missing_mask_is_not_known_and_an_empty_one_is(tmp_path):
    write_labelled(tmp_path, **{"mask/heart": [None, "-1"] * 18})
    batch = dataset(tmp_path, train=False)[plan(0, 1)]
    assert (batch["masks"][0] == 255).all()
    assert (batch["masks"][1] == 0).all()
    assert batch["readable"].all()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_a_mask_of_another_size_is_one_sentence(tmp_path, train, workers):
    write_labelled(tmp_path)
    cv2.imwrite(str(tmp_path / "000_heart.png"), np.zeros((12, 30), np.uint8))
    sampler = FixedBatchSampler(np.arange(2), 2)
    loader = plan_loader(dataset(tmp_path, train), sampler, num_workers=workers, pin_memory=False)
    with pytest.raises(InputError) as refused:
        list(loader)
    assert re.fullmatch(
        r"mask of 'heart' of image 0: .*000_heart\.png has 12 x 30 pixels \(height x width\), its "
        r"image 24 x 24: resize the mask to the image, .* or name the right file",
        str(refused.value),
    )


def test_views_without_masks_are_refused(tmp_path):
    write_labelled(tmp_path)
    pairs = PairViews(image_size=16)
    pairs.targets = Targets(structures=("heart",))
    data = CXRDataModule(str(tmp_path / "index.csv"), views=pairs, batch_size=4)
    with pytest.raises(InputError, match="PairViews makes no masks: segmentation needs Supervised"):
        data.train_dataloader()

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrssl.data.dataset import EvalDataset, ViewDataset
from cxrssl.data.phantom import Phantom
from cxrssl.data.sampler import BatchPlan, PlannedBatchSampler
from cxrssl.data.sources import ImageFiles, PhantomSource
from cxrssl.errors import InputError
from cxrssl.views.eval_view import EvalView
from tests.data.stand_ins import DrawViews, write_images


def plan(*images, epoch=2, number=3, rank=0):
    return BatchPlan(epoch, number, rank, np.array(images))


def test_batch_is_made_from_the_documented_streams(tmp_path):
    dataset = ViewDataset(ImageFiles(write_images(tmp_path, 6)), DrawViews(), seed=9)
    batch = dataset[plan(4, 1, rank=1)]
    expected = [[i, np.random.default_rng((9, 2, i)).random()] for i in (4, 1)]
    assert batch["view"].tolist() == expected
    assert batch["draw"].item() == np.random.default_rng((9, 2, 3, 1, 1)).random()
    assert batch["image_number"].tolist() == [4, 1]
    assert batch["failures"] == []
    assert len(dataset) == 6


def test_streams_do_not_meet(tmp_path):
    dataset = ViewDataset(ImageFiles(write_images(tmp_path, 2)), DrawViews(), seed=0)
    batch = dataset[plan(0, epoch=0, number=0)]
    assert batch["draw"].item() != batch["view"][0, 1].item()
    order = PlannedBatchSampler(2**16, 1, seed=0).order(0)
    for taken in ((0, 0, 0), (0, 0, 0, 0, 1)):
        assert (order != np.random.default_rng(taken).permutation(2**16)).any()


def test_global_random_state_is_neither_read_nor_written(tmp_path):
    dataset = ViewDataset(ImageFiles(write_images(tmp_path, 3)), DrawViews(), seed=0)
    torch.manual_seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the state is what is tested
    first = dataset[plan(0, 1)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(2)
    assert torch.equal(dataset[plan(0, 1)]["view"], first["view"])


def test_corrupt_image_is_replaced_and_the_rest_of_the_batch_unchanged(tmp_path):
    whole = ViewDataset(ImageFiles(write_images(tmp_path, 6)), DrawViews(), seed=9)[plan(0, 4, 2)]
    paths = write_images(tmp_path, 6, corrupt=(4, 5))
    batch = ViewDataset(ImageFiles(paths), DrawViews(), seed=9)[plan(0, 4, 2)]
    # Images 4 and 5 cannot be read: past the end comes image 0, with the draws of image 4.
    assert batch["image_number"].tolist() == [0, 0, 2]
    assert batch["view"][:, 0].tolist() == [0, 0, 2]
    assert torch.equal(batch["view"][:, 1], whole["view"][:, 1])
    assert torch.equal(batch["draw"], whole["draw"])
    assert [number for number, _ in batch["failures"]] == [4, 5]
    assert all(paths[number] in message for number, message in batch["failures"])


def test_twenty_neighbours_are_tried(tmp_path):
    paths = write_images(tmp_path, 23, corrupt=tuple(range(1, 22)))
    dataset = ViewDataset(ImageFiles(paths), DrawViews(), seed=0)
    assert dataset[plan(2)]["image_number"].tolist() == [22]
    with pytest.raises(InputError, match=r"neither .*001\.png nor the 20 images after it .*021"):
        dataset[plan(1)]


def test_errors_of_views_are_not_taken_for_corrupt_images(tmp_path):
    class Broken(DrawViews):
        def __call__(self, image, rng):
            raise ValueError("the view is broken")

    dataset = ViewDataset(ImageFiles(write_images(tmp_path, 2)), Broken(), seed=0)
    with pytest.raises(ValueError, match="the view is broken"):
        dataset[plan(0)]


def test_evaluation_keeps_the_place_of_a_corrupt_image(tmp_path):
    paths = write_images(tmp_path, 4, corrupt=(2,))
    labels = np.array([[1, 0], [np.nan, -1], [1, 1], [0, 0]], np.float32)
    dataset = EvalDataset(ImageFiles(paths), EvalView(image_size=8, in_chans=3), labels)
    batch = dataset[plan(1, 2, 3)]
    assert batch["image"].shape == (3, 3, 8, 8)
    assert (batch["image"][1] == 0).all()
    assert (batch["image"][0] != 0).all()
    np.testing.assert_array_equal(
        batch["labels"], np.array([[np.nan, -1], [np.nan, np.nan], [0, 0]], np.float32)
    )
    assert batch["labels"].dtype == torch.float32
    assert batch["image_number"].tolist() == [1, 2, 3]
    assert [number for number, _ in batch["failures"]] == [2]
    assert labels[2].tolist() == [1, 1]
    assert len(dataset) == 4


def test_image_files_join_the_root_and_travel_to_workers(tmp_path):
    names = [Path(path).name for path in write_images(tmp_path, 3)]
    files = pickle.loads(pickle.dumps(ImageFiles(names, tmp_path)))
    assert len(files) == 3
    assert files.name(1) == str(tmp_path / "001.png")
    assert files[2].dtype == np.uint8
    assert (files[2] == 2).all()
    assert ImageFiles(["/a.png"], "/root").name(0) == "/a.png"


def test_phantom_source_draws_its_numbers():
    phantom = Phantom(32, 3)
    source = PhantomSource(phantom, np.array([7, 2]))
    assert len(source) == 2
    np.testing.assert_array_equal(source[0], phantom.pixels(7))
    assert source.name(1) == "phantom/000002"

import numpy as np
from torch import distributed as dist

from cxrssl.gathering import gather_images
from tests.distributed import run_two


def rows_of(*numbers):
    return {"score": np.array(numbers) * 10.0, "image_number": np.array(numbers)}


def gather_shares(rank, *pairs):
    return [gather_images(pair[rank]) for pair in pairs]


def test_rows_of_all_processes_by_image_number_each_once(tmp_path):
    # Padding shows image 1 to both processes, and twice to the second; then one has no images.
    padded = rows_of(4, 0, 1), rows_of(3, 1, 1)
    uneven = {}, rows_of(4)
    for both, single, none in run_two(gather_shares, tmp_path, padded, uneven, ({}, {})):
        assert both["image_number"].tolist() == [0, 1, 3, 4]
        assert both["score"].tolist() == [0, 10, 30, 40]
        assert single["image_number"].tolist() == [4]
        assert none == {}


def test_one_process_sorts_its_own_rows():
    assert not dist.is_initialized()
    assert gather_images(rows_of(2, 0, 2))["score"].tolist() == [0, 20]
    assert gather_images({}) == {}

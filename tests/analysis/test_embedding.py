import numpy as np
import torch

from cxrssl.analysis import embed_loader


def test_rows_keep_their_order_and_names():
    images = torch.arange(10.0).reshape(5, 2, 1, 1)
    numbers = torch.tensor([4, 0, 3, 1, 2])
    loader = [
        {"image": images[rows], "image_number": numbers[rows], "failures": []}
        for rows in (slice(0, 3), slice(3, 5))
    ]
    weight = torch.ones(2, requires_grad=True)
    rows = embed_loader(lambda x: x.flatten(1).bfloat16() * weight, loader, "cpu")
    assert sorted(rows) == ["features", "image_number"]
    assert rows["features"].dtype == np.float32
    np.testing.assert_array_equal(rows["features"], images.flatten(1).numpy())
    np.testing.assert_array_equal(rows["image_number"], numbers.numpy())


def test_empty_loader():
    assert embed_loader(lambda x: x, [], "cpu") == {}

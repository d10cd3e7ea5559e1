import torch

from cxrssl.analysis.world_baseline import TokenMeans


def test_means_leave_one_image_out():
    tokens = torch.randn(5, 2, 6, 3, generator=torch.Generator().manual_seed(0))  # two crops each
    means = TokenMeans()
    for image in tokens:
        means.add(image)
    others = tokens[[0, 1, 3, 4]].flatten(0, 1)
    torch.testing.assert_close(means.without(tokens[2]), others.mean(0))
    torch.testing.assert_close(means.overall(), tokens.flatten(0, 2).mean(0))


def test_nothing_of_the_image_is_left():
    # Beside tokens this large, what stays of them would hide the others.
    large, small = torch.full((1, 1, 1), 1e7), torch.full((1, 1, 1), 0.3)
    means = TokenMeans()
    for image in (small, large):
        means.add(image)
    assert means.without(large).item() == torch.tensor(0.3).item()

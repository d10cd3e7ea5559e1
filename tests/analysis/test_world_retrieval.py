import numpy as np
import pytest
import torch

from cxrssl.analysis.world_retrieval import (
    feature_distances,
    hits,
    judge,
    judge_chance,
    patch_distances,
)


def test_hits_by_hand():
    distances = torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4], [4, 3, 2, 1]])
    found = hits(distances, torch.tensor([0, 2, 1]), (1, 2, 3))
    assert found.tolist() == [[1, 1, 1], [0, 0, 1], [0, 0, 1]]


def test_ties_are_ranked_at_random():
    # One column is nearer, three share the next place: the true one is second with 1/3.
    distances = torch.tensor([[0.0, 1, 1, 1, 2]])
    found = hits(distances, torch.tensor([2]), (1, 2, 3, 4))
    torch.testing.assert_close(found, torch.tensor([[0, 1 / 3, 2 / 3, 1]], dtype=torch.float64))


def test_hits_equal_sorting_where_there_are_no_ties():
    rng = torch.Generator().manual_seed(0)
    distances, truth = torch.rand(3, 20, 30, generator=rng), torch.arange(20)
    ranks = distances.argsort(-1).argsort(-1)[:, torch.arange(20), truth]
    for k in (1, 5):
        torch.testing.assert_close(hits(distances, truth, (k,))[..., 0], (ranks < k).double())


def test_distances_of_features_that_are_much_alike():
    common = 1e4 * torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    candidates = (common + torch.tensor([[0.0], [0.25], [0.5]])).float()
    distances = feature_distances(candidates, candidates)
    assert distances.diagonal().tolist() == [0, 0, 0]
    np.testing.assert_allclose(distances[0].numpy(), [0, 2, 4], rtol=1e-2)


def test_patch_distances_by_hand():
    root = 2**0.5
    expected = [[0, 1, 1, root], [1, 0, root, 1], [1, root, 0, 1], [root, 1, 1, 0]]
    np.testing.assert_allclose(patch_distances(2).numpy(), expected)


def test_judged_by_hand():
    tokens = torch.tensor([[0.0], [1], [2], [3]])  # of a grid of 2 x 2
    truth = torch.tensor([0, 0])
    found = judge(torch.tensor([[0.5 - 1e-3], [2.9]]), tokens, truth, 2)
    # The first finds patch 0; the second finds patch 3, across, and ranks patch 0 last of four.
    expected = [[1, 1, 0, (0.5 - 1e-3) ** 2], [0, 1, 2**0.5, 2.9**2]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    chance = judge_chance(tokens, torch.tensor([1.5]), torch.tensor([0, 1]), 2)
    apart = (2 + 2**0.5) / 4
    np.testing.assert_allclose(chance, [[1 / 4, 1, apart, 1.5**2], [1 / 4, 1, apart, 0.5**2]])


def test_between_equally_near_patches_the_distance_is_their_mean():
    tokens = torch.tensor([[0.0], [2], [9], [9]])
    (found,) = judge(torch.tensor([[1.0]]), tokens, torch.tensor([0]), 2)
    np.testing.assert_allclose(found[:3], [0.5, 1, 0.5])


def test_features_that_are_not_finite():
    with pytest.raises(ValueError, match="tokens hold NaN or inf"):
        feature_distances(torch.full((1, 2), torch.nan), torch.zeros(3, 2))

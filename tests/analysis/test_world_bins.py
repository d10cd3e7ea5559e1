import numpy as np

from cxrssl.analysis.world_bins import Bins


def test_an_edge_belongs_to_the_bin_below():
    bins = Bins(np.array([[-1.5, -1.0], [0.0, 0.25], [2.5, 3.0]]), 1.0)
    np.testing.assert_array_equal(bins.edges, [-2, -1, 0, 1, 2, 3])
    members = [bins.groups[n].ravel().nonzero()[0].tolist() for n in range(5)]
    assert members == [[0, 1], [2], [3], [], [4, 5]]


def test_every_value_is_in_one_bin():
    values = np.random.default_rng(0).normal(size=(7, 9))
    bins = Bins(values, 0.25)
    assert (bins.groups.sum(0) == 1).all()
    for low, high, group in zip(bins.edges[:-1], bins.edges[1:], bins.groups, strict=True):
        assert ((values[group] > low) & (values[group] <= high)).all()

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from cxrssl.data.sampler import FixedBatchSampler, PlannedBatchSampler
from cxrssl.errors import InputError


def images(sampler):
    return [plan.images.tolist() for plan in sampler]


def flat(batches):
    return [number for batch in batches for number in batch]


def test_an_epoch_shows_every_image_once_but_the_rest():
    sampler = PlannedBatchSampler(23, 5, seed=1)
    batches = images(sampler)
    assert len(batches) == len(sampler) == 4
    shown = flat(batches)
    assert len(set(shown)) == 20
    assert shown == sampler.order(0)[:20].tolist()
    assert sorted(sampler.order(0)) == list(range(23))
    assert [(plan.epoch, plan.number, plan.rank) for plan in sampler] == [
        (0, number, 0) for number in range(4)
    ]


def test_order_is_a_function_of_seed_and_epoch():
    first, second = PlannedBatchSampler(50, 5, seed=1), PlannedBatchSampler(50, 10, seed=1)
    second.set_epoch(3)
    list(second)
    np.testing.assert_array_equal(first.order(7), second.order(7))
    assert (first.order(0) != first.order(1)).any()
    assert (first.order(0) != PlannedBatchSampler(50, 5, seed=2).order(0)).any()


def test_two_ranks_share_the_batches_of_one():
    one = PlannedBatchSampler(50, 6, seed=3)
    two = [PlannedBatchSampler(50, 3, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    for sampler in (one, *two):
        sampler.set_epoch(4)
    left, right = (images(sampler) for sampler in two)
    assert images(one) == [a + b for a, b in zip(left, right, strict=True)]
    assert {plan.rank for plan in two[1]} == {1}
    assert one.global_batch == two[0].global_batch == 6


def test_accumulated_batches_make_whole_steps():
    """Two batches of 6 make the steps that one of 12 makes, and no step is left half done."""
    whole = images(PlannedBatchSampler(53, 12, seed=3))
    parts = images(PlannedBatchSampler(53, 6, seed=3, accumulated=2))
    assert [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)] == whole
    assert len(parts) == len(PlannedBatchSampler(53, 6, seed=3, accumulated=2)) == 8


def test_start_skips_batches_of_its_own_epoch_only():
    sampler = PlannedBatchSampler(40, 4)
    whole = {}
    for epoch in (2, 3):
        sampler.set_epoch(epoch)
        whole[epoch] = images(sampler)
    sampler.start_at(2, 7)
    assert images(sampler) == whole[2][7:]
    assert next(iter(sampler)).number == 7
    assert len(sampler) == 10
    sampler.set_epoch(3)
    assert images(sampler) == whole[3]


def test_weights_draw_with_replacement_in_proportion():
    weights = np.array([0.0, 1.0, 3.0, 0.0])
    sampler = PlannedBatchSampler(4, 2, weights=weights)
    orders = np.concatenate([sampler.order(epoch) for epoch in range(1000)])
    counts = np.bincount(orders, minlength=4)
    assert counts[0] == counts[3] == 0
    # 4000 draws with p = 3/4: three standard deviations are 82.
    assert abs(counts[2] - 3000) < 82
    again = PlannedBatchSampler(4, 2, weights=10 * weights)
    np.testing.assert_array_equal(sampler.order(5), again.order(5))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"shape \(4,\), got \(3,\)"),
        (np.zeros(4), "not all 0"),
        (np.array([1.0, -1.0, 1.0, 1.0]), ">= 0"),
        (np.array([1.0, np.nan, 1.0, 1.0]), "finite"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        PlannedBatchSampler(4, 2, weights=weights)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match=r"15 training images do not fill .* 8 x 2 .*lower one"):
        PlannedBatchSampler(15, 8, world_size=2)


def test_fixed_batches_keep_every_image():
    sampler = FixedBatchSampler(np.array([3, 1, 4, 15, 9]), 2)
    assert images(sampler) == images(sampler) == [[3, 1], [4, 15], [9]]
    assert len(sampler) == 3


@pytest.mark.parametrize("n", [1, 7, 8, 9])
def test_fixed_batches_of_ranks(n):
    numbers = np.arange(n)
    shards = [FixedBatchSampler(numbers, 2, rank, 4) for rank in range(4)]
    assert sorted(flat(flat(images(shard) for shard in shards))) == numbers.tolist()
    padded = [FixedBatchSampler(numbers, 2, rank, 4, pad=True) for rank in range(4)]
    shapes = [[len(batch) for batch in images(shard)] for shard in padded]
    assert all(shape == shapes[0] for shape in shapes)
    shown = flat(flat(images(shard) for shard in padded))
    assert set(shown) == set(numbers.tolist())
    assert len(shown) == -(-n // 4) * 4


def test_trainers_take_the_samplers_for_distributed_ones():
    assert isinstance(PlannedBatchSampler(4, 2), DistributedSampler)
    assert isinstance(FixedBatchSampler(np.arange(4), 2), DistributedSampler)

"""Accumulated micro-batches over two processes: reduced once a step, and skipped as a whole."""

from collections import Counter
from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from cxrssl.objectives import FullySharded
from tests.distributed import run_two
from tests.objectives.sharded_training import fit, fit_share
from tests.objectives.siamese_training import small_dinov2
from tests.objectives.test_sharding import made

STEPS, MICRO, SPOILT = 3, 2, 1
# The name depends on torch's version.
SCATTERS = [n for n in ("reduce_scatter_single", "reduce_scatter_tensor") if hasattr(dist, n)]
STRATEGIES = {
    "ddp": lambda: "ddp",
    "fully_sharded": lambda: "fully_sharded",
    "reduce_each": lambda: FullySharded(reduce_each=True),
}


class Reductions(Callback):
    """Counts how often each piece of the gradients is reduced."""

    def __init__(self):
        self.counts, self.plain = Counter(), {}

    def on_train_start(self, trainer, pl_module):
        if not isinstance(trainer.strategy, FullySharded):
            trainer.strategy.model.register_comm_hook(None, self.reduce)
            return
        for name in SCATTERS:
            self.plain[name] = getattr(dist, name)
            setattr(dist, name, partial(self.scatter, name))

    def on_train_end(self, trainer, pl_module):
        for name, plain in self.plain.items():
            setattr(dist, name, plain)

    def reduce(self, state, bucket):
        self.counts[bucket.index()] += 1
        return allreduce_hook(state, bucket)

    def scatter(self, name, *arguments, **options):
        self.counts["all"] += 1
        return self.plain[name](*arguments, **options)


def steps(spoilt=None):
    """Return an objective and its batches, with a micro-batch of one step spoilt."""
    objective, whole = made(small_dinov2, STEPS, 2 * MICRO)
    if spoilt is not None:
        whole[SPOILT]["global_crops"][2 * spoilt + 1] = torch.nan  # on the second process
    return objective, whole


def accumulate(rank, strategy, spoilt=None, **options):
    options |= {"strategy": strategy(), "accumulate_grad_batches": MICRO}
    return fit_share(rank, *steps(spoilt), **options)


def train(rank):
    results = {}
    for name, strategy in STRATEGIES.items():
        reductions = Reductions()
        result = accumulate(rank, strategy, callbacks=[reductions])
        spoilt = accumulate(rank, strategy, MICRO - 1)
        counts = dict(reductions.counts)
        results[name] = {"fit": result, "counts": counts, "spoilt": spoilt}
    return results


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_two(train, tmp_path_factory.mktemp("accumulation"))


def assert_same_state(share, one):
    for name, value in one["state"].items():
        difference = (share["state"][name] - value).abs().max().item()
        assert difference < 1e-5 * max(value.abs().max().item(), 1.0), name


@pytest.mark.parametrize("name", STRATEGIES)
def test_gradients_are_reduced_once_a_step(trained, name):
    for rank in trained:
        counts = rank[name]["counts"]
        if name == "ddp":
            assert set(counts.values()) == {STEPS}
        else:
            once = trained[0]["fully_sharded"]["counts"]["all"] / STEPS
            assert counts["all"] == once * (STEPS * MICRO if name == "reduce_each" else STEPS)


@pytest.mark.parametrize("name", STRATEGIES)
def test_accumulated_steps_are_those_of_one_process(trained, name):
    one = fit(*steps(), accumulate_grad_batches=MICRO)
    for rank in trained:
        assert_same_state(rank[name]["fit"], one)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_spoilt_micro_batch_leaves_nothing_behind(trained, name):
    """The step after a skipped one sees nothing of it, though its last micro-batch was bad."""
    one = fit(*steps(MICRO - 1), accumulate_grad_batches=MICRO)
    for rank in trained:
        assert rank[name]["spoilt"]["skipped"] == 1
        assert_same_state(rank[name]["spoilt"], one)

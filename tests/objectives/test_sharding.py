"""Training over two processes, sharded or not, equals that of one on the joined batches."""

from functools import partial

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from cxrssl.backbones import ViT
from cxrssl.callbacks import EncoderFile
from cxrssl.errors import InputError
from cxrssl.heads import Predictor
from cxrssl.objectives import FullySharded
from cxrssl.objectives.run_checks import check_trainer
from tests.distributed import run_two
from tests.objectives.jepa_training import ijepa_batches, small_ijepa
from tests.objectives.sharded_training import fit, fit_share
from tests.objectives.siamese_training import (
    batches,
    small_convnet,
    small_dinov2,
    small_joint,
    small_lejepa,
    small_mlvicx,
    small_vicreg,
    small_world,
)

STEPS = 3
STRATEGIES = ("ddp", "fully_sharded")
CASES = {
    "DINOv2": small_dinov2,
    "DINOv2, Sinkhorn": lambda: small_dinov2(centering="sinkhorn"),
    "WorldModel": small_world,
    "IJEPA": small_ijepa,
    "VICReg": small_vicreg,
    "MLVICX": small_mlvicx,
    "MLVICX, in line": lambda: small_mlvicx(gating="inline"),
    "MLVICX, ConvNet": lambda: small_mlvicx(small_convnet(), fusion_size=16),
    "LeJEPA": small_lejepa,
    "Joint": lambda: small_joint("dinov2", "mlvicx", "world"),
    "Joint, one at rest": lambda: small_joint("dinov2", "mlvicx", shares={"mlvicx": 0.0}),
}


def recomputed(name):
    """Return an objective that recomputes its blocks in the backward pass."""
    objective = CASES[name]()
    for part in objective.modules():
        if isinstance(part, ViT | Predictor):
            part.activation_checkpointing = True
    return objective


RECOMPUTED = {
    f"{name}, recomputed": partial(recomputed, name) for name in CASES if "ConvNet" not in name
}


def made(make, steps=STEPS, batch_size=4, dtype=torch.float64):
    """Return an objective and its batches, in double precision for the sake of batch norms."""
    objective = make().to(dtype)
    if type(objective).__name__ == "IJEPA":
        whole = ijepa_batches(steps, batch_size)
    else:
        whole = batches(objective.views, steps, batch_size)
    return objective, tree_map(lambda v: v.to(dtype) if v.is_floating_point() else v, whole)


def assert_same(shares, one, strategy="fully_sharded"):
    """Compare what two processes ended with, with what one did."""
    for share in shares:
        assert share["part"] == 1 if strategy == "ddp" else 0.4 < share["part"] < 0.6
        assert_close(share["losses"], one["losses"], atol=1e-6, rtol=1e-6)
        for kind in ("gradients", "state"):
            assert share[kind].keys() == one[kind].keys()
            for name, value in one[kind].items():
                if kind == "gradients" and not name.endswith("step 0"):
                    continue  # rounding has moved the weights by then
                largest = max(value.abs().max().item(), 1.0)
                difference = (share[kind][name] - value).abs().max().item()
                assert difference < 1e-5 * largest, f"{kind} of {name}"


class Embed(Callback):
    """Embeds an image and writes the encoder in the end."""

    def on_train_end(self, trainer, pl_module):
        image = torch.ones(1, 1, 32, 32, dtype=pl_module.dtype)
        pl_module.embedding = pl_module.embed(image)
        assert_close(pl_module.tokens(image).cls, pl_module.embedding.double())


def train_dinov2(rank, folder):
    objective, whole = made(small_dinov2)
    callbacks = [Embed(), EncoderFile()]
    options = {"callbacks": callbacks, "default_root_dir": folder}
    result = fit_share(rank, objective, whole, folder / "two.ckpt", **options)
    result |= {"embedding": objective.embedding, "description": objective.describe()}

    again, _ = made(small_dinov2)
    resumed = fit_share(rank, again, whole, ckpt_path=folder / "one.ckpt")

    spoilt = tree_map(torch.clone, whole)
    spoilt[1]["global_crops"][-1] = torch.nan  # on the second process
    skipping = fit_share(rank, made(small_dinov2)[0], spoilt)

    stage = small_dinov2(init_from=str(folder / "one.ckpt")).double()
    continued = fit_share(rank, stage, whole)
    return {"fit": result, "resumed": resumed, "skipping": skipping, "continued": continued}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    one = fit(*made(small_dinov2), folder / "one.ckpt")
    return folder, one, run_two(train_dinov2, folder, folder)


def results(dinov2, name):
    return [rank[name] for rank in dinov2[2]]


def test_sharded_training_equals_that_of_one_process(dinov2):
    assert_same(results(dinov2, "fit"), dinov2[1])


def test_a_sharded_run_goes_on_in_one_process_and_the_other_way_round(dinov2):
    folder, one, _ = dinov2
    objective, whole = made(small_dinov2)
    resumed = fit(objective, whole, ckpt_path=folder / "two.ckpt")
    assert len(resumed["losses"]) == STEPS - 1
    assert_close(resumed["losses"], one["losses"][1:])
    for result in (resumed, *results(dinov2, "resumed")):
        for name, value in one["state"].items():
            assert_close(result["state"][name], value, atol=1e-6, rtol=1e-5)


def test_checkpoints_are_those_of_one_process(dinov2):
    folder, _, _ = dinov2
    two, one = (torch.load(folder / name, weights_only=True) for name in ("two.ckpt", "one.ckpt"))
    assert two["cxrssl"] == one["cxrssl"]
    assert two["state_dict"].keys() == one["state_dict"].keys()
    (state,), (expected,) = two["optimizer_states"], one["optimizer_states"]
    assert state["param_groups"] == expected["param_groups"]
    assert_close(state["state"], expected["state"], atol=1e-6, rtol=1e-5)


def test_a_sharded_encoder_embeds_and_is_written_whole(dinov2):
    folder, _, _ = dinov2
    first, second = results(dinov2, "fit")
    assert first["description"]["objective"] == "DINOv2"
    encoder = small_dinov2().encoder
    encoder.load_state_dict(load_file(folder / "encoder.safetensors"))
    expected = encoder.double().eval()(torch.ones(1, 1, 32, 32).double()).cls.float()
    for result in (first, second):
        assert_close(result["embedding"], expected)


def test_a_batch_that_is_not_finite_on_one_process_is_skipped_on_all(dinov2):
    first, second = results(dinov2, "skipping")
    assert first["skipped"] == second["skipped"] == 1
    for name, value in first["state"].items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, second["state"][name])


def test_an_earlier_stage_is_taken_over_before_sharding(dinov2):
    folder, _, _ = dinov2
    _, whole = made(small_dinov2)
    one = fit(small_dinov2(init_from=str(folder / "one.ckpt")).double(), whole)
    assert_same(results(dinov2, "continued"), one)


def train_all(rank):
    makes = CASES | RECOMPUTED
    return {
        strategy: {
            name: fit_share(rank, *made(make), strategy=strategy) for name, make in makes.items()
        }
        for strategy in STRATEGIES
    }


@pytest.fixture(scope="module")
def every_case(tmp_path_factory):
    return run_two(train_all, tmp_path_factory.mktemp("every"))


def accumulate(rank):
    return fit_share(rank, *made(small_world), accumulate_grad_batches=2)


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_one_process(tmp_path):
    one = fit(*made(small_world), accumulate_grad_batches=2)
    assert_same(run_two(accumulate, tmp_path), one)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", [*CASES, *RECOMPUTED])
def test_every_objective_trains_as_in_one_process(every_case, name, strategy):
    """Recomputed blocks change nothing either: the one process computes them once."""
    shares = [result[strategy][name] for result in every_case]
    assert_same(shares, fit(*made(CASES[name.removesuffix(", recomputed")])), strategy)


def train_spoilt(rank):
    results = {}
    for strategy in STRATEGIES:
        for micro in (1, 2):
            objective, whole = made(small_dinov2)
            whole[1]["global_crops"][-1] = torch.nan  # last micro-batch of the second process
            options = {"strategy": strategy, "accumulate_grad_batches": micro}
            results[strategy, micro] = fit_share(rank, objective, whole, **options)
    return results


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    return run_two(train_spoilt, tmp_path_factory.mktemp("spoilt"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("micro", [1, 2])
def test_a_spoilt_step_is_skipped_as_in_one_process(spoilt, strategy, micro):
    objective, whole = made(small_dinov2)
    whole[1]["global_crops"][-1] = torch.nan
    one = fit(objective, whole, accumulate_grad_batches=micro)
    shares = [result[strategy, micro] for result in spoilt]
    assert [share["skipped"] for share in shares] == [one["skipped"]] * 2 == [1, 1]
    for name, value in one["state"].items():
        for share in shares:
            assert_close(share["state"][name], value, atol=1e-6, rtol=1e-5)


PRECISIONS = {
    "autocast": {"precision": "bf16-mixed"},
    "blocks": {"strategy": FullySharded(half_blocks=True)},
}


def train_in_half(rank):
    objective = small_dinov2()
    whole = batches(objective.views, STEPS)
    return {n: fit_share(rank, small_dinov2(), whole, **PRECISIONS[n]) for n in PRECISIONS}


@pytest.fixture(scope="module")
def in_half(tmp_path_factory):
    return run_two(train_in_half, tmp_path_factory.mktemp("half"))


@pytest.mark.slow
@pytest.mark.parametrize("name", PRECISIONS)
def test_half_precision_is_near_full_and_keeps_weights_in_full(in_half, name):
    objective = small_dinov2()
    one = fit(objective, batches(objective.views, STEPS))
    for share in (result[name] for result in in_half):
        assert_close(share["losses"], one["losses"], atol=0.02, rtol=0.02)
        assert not torch.equal(share["losses"], one["losses"])
        for values in (share["state"], share["gradients"]):
            assert all(value.dtype == torch.float32 for value in values.values())


class Asked:
    """A trainer of which only strategy and precision count."""

    def __init__(self, strategy, precision="32-true"):
        self.strategy, self.precision = strategy, precision


@pytest.mark.parametrize(
    ("trainer", "make", "stage", "shardable", "message"),
    [
        (Asked(ModelParallelStrategy()), small_dinov2, "fit", True, "use fully_sharded or ddp"),
        (Asked(FullySharded()), small_dinov2, "fit", False, "DINOv2 cannot be sharded: use ddp"),
        (Asked(FullySharded()), small_dinov2, "test", True, "only training is sharded"),
        (Asked(FullySharded(), "16-mixed"), small_dinov2, "fit", True, "use bf16-mixed"),
        (Asked(FullySharded()), small_vicreg, "fit", True, "1 batch norms .*sync_batchnorm"),
    ],
)
def test_what_cannot_be_sharded_is_refused(trainer, make, stage, shardable, message):
    with pytest.raises(InputError, match=message):
        check_trainer(trainer, stage, make(), shardable=shardable)

"""Compiled blocks train as others do, under their old names."""

import dataclasses
import functools
import shutil

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cxrssl.backbones import PackedBlock, block
from cxrssl.callbacks.encoder_file import EncoderFile
from cxrssl.errors import InputError
from cxrssl.objectives.compiling import compile_blocks
from cxrssl.objectives.footprint import measure_footprint
from tests.distributed import run_two
from tests.objectives.jepa_training import small_ijepa
from tests.objectives.sharded_training import fit, fit_share
from tests.objectives.siamese_training import (
    batches,
    small_convnet,
    small_dinov2,
    small_joint,
    small_lejepa,
    small_mlvicx,
    small_vicreg,
    small_vit,
    small_world,
)
from tests.objectives.test_sharding import made

CASES = {
    "DINOv2": lambda: small_dinov2(small_vit(drop_path=0.4)),
    "DINOv2, packed": lambda: small_dinov2(small_vit(drop_path=0.4, packed=True)),
    "DINOv2, recomputed": lambda: small_dinov2(
        small_vit(drop_path=0.4, activation_checkpointing=True)
    ),
    "WorldModel": small_world,
    "IJEPA": small_ijepa,
    "VICReg": small_vicreg,
    "MLVICX, in line": lambda: small_mlvicx(gating="inline"),
    "LeJEPA": small_lejepa,
    "Joint": lambda: small_joint("dinov2", "mlvicx", "world"),
}


def compiled(make):
    """Return an objective whose recipe compiles its blocks, and its batches."""
    objective, whole = made(make)
    objective.recipe = dataclasses.replace(objective.recipe, compile_blocks=True)
    return objective, whole


@pytest.fixture
def traced(monkeypatch):
    """Compile without generating code, which takes a fraction of the time."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    block._compiled.cache_clear()
    yield
    block._compiled.cache_clear()


@pytest.fixture
def generated():
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    block._compiled.cache_clear()


def assert_alike(result, expected, tolerance):
    assert_close(result["losses"], expected["losses"], atol=tolerance, rtol=tolerance)
    for kind in ("gradients", "state"):
        assert list(result[kind]) == list(expected[kind])
        for name, value in expected[kind].items():
            assert_close(result[kind][name], value, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["DINOv2, packed", "DINOv2, recomputed", "WorldModel", "Joint"])
def test_traced_blocks_train_as_others(traced, name):
    make = CASES[name]
    objective, whole = compiled(make)
    result = fit(objective, whole)
    blocks = [part for part in objective.modules() if isinstance(part, PackedBlock)]
    assert all(part.compiled for part in blocks)
    assert_alike(result, fit(*made(make)), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiled_blocks_train_as_others(generated, name):
    make = CASES[name]
    result = fit(*compiled(make))
    assert_alike(result, fit(*made(make)), 1e-8)


def compiled_shares(rank):
    make = CASES["DINOv2, recomputed"]
    return {s: fit_share(rank, *compiled(make), strategy=s) for s in ("ddp", "fully_sharded")}


@pytest.mark.slow
def test_compiled_blocks_train_under_both_strategies(generated, tmp_path):
    make = CASES["DINOv2, recomputed"]
    for share in run_two(compiled_shares, tmp_path):
        # Without the same subsets of images on two processes, only both strategies are alike.
        assert_alike(share["ddp"], share["fully_sharded"], 1e-6)
        assert list(share["ddp"]["state"]) == list(fit(*made(make))["state"])


def test_a_compiled_run_writes_an_ordinary_encoder(traced, tmp_path):
    objective, whole = compiled(small_dinov2)
    fit(objective, whole, callbacks=[EncoderFile()], default_root_dir=tmp_path)
    names = small_dinov2().encoder.state_dict().keys()
    assert objective.encoder.state_dict().keys() == names


def test_the_estimate_does_not_run_compiled_blocks(traced):
    objective = small_dinov2()
    expected = measure_footprint(objective, 2)
    compile_blocks(objective)
    assert measure_footprint(objective, 2) == expected
    assert all(b.compiled for b in objective.backbone.vit.blocks)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # by torch of itself
def test_batches_of_other_sizes_are_taken(traced):
    objective = small_world()
    compile_blocks(objective)
    for size in (2, 3, 5):
        [batch] = batches(objective.views, 1, batch_size=size, seed=size)
        sum(objective.loss_terms(batch, 0.5).values()).backward()


def test_what_has_no_blocks_is_refused():
    with pytest.raises(InputError, match="VICReg has no transformer blocks to compile"):
        compile_blocks(small_vicreg(small_convnet()))
    with pytest.raises(InputError, match="leave compile_blocks out"):
        compile_blocks(nn.Linear(2, 2))

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.classification import GLoRI
from tests.golden import load_golden
from tests.heads.classification.official import golden_gradients, golden_head
from tests.heads.classification.tokens import golden_levels, random_levels

CASES = ("nocls", "catcls")


def small(dims=(12,) * 4, findings=5, **options):
    torch.manual_seed(0)
    return GLoRI(dims, findings, **{"width": 32, "heads": 4, "hidden": 24} | options).eval()


def slow_logits(head, levels):
    """One image, one finding and one head at a time; no dropout."""
    head = copy.deepcopy(head).double()
    levels = [
        level._replace(cls=level.cls.double(), patches=level.patches.double()) for level in levels
    ]
    width = head.embed.out_features
    size = width // head.attend.heads
    logits = []
    for image in range(len(levels[0].patches)):
        patches = torch.cat([level.patches[image] for level in levels], 1)
        merged = F.relu(patches @ head.embed.weight.T + head.embed.bias)
        if head.pyramid is not None:
            merged = merged + head.pyramid(patches[None], levels[0].grid)[0]
        scale = 1.0
        if head.temperature is not None:
            scale = math.exp(head.temperature(merged.mean(0)).item())
        keys, values = head.attend.kv(merged).split(width, 1)
        for finding in range(head.n_findings):
            t = head.norm_queries(2 * head.queries[finding])
            q = head.attend.q(t)
            gathered = []
            for part in (slice(i, i + size) for i in range(0, width, size)):
                weights = (scale * (keys[:, part] @ q[part]) / math.sqrt(size)).softmax(0)
                gathered.append(weights @ values[:, part])
            t = head.norm_attention(t + head.attend.proj(torch.cat(gathered)))
            t = head.norm_mlp(t + head.mlp(t))
            if head.class_skip:
                t = torch.cat([*[level.cls[image] for level in levels], t])
            logits.append(t @ head.classifier.weight[finding] + head.classifier.bias[finding])
    return torch.stack(logits).unflatten(0, (-1, head.n_findings))


@pytest.mark.parametrize("case", CASES)
def test_golden_logits_and_gradients(case, tmp_path):
    golden = load_golden(f"glori/glori_tiny_{case}.npz")
    head = golden_head(golden, tmp_path, case)
    logits = head(golden_levels(golden))
    assert_close(logits, golden["logits"], atol=2e-5, rtol=1e-5)
    labels = golden["labels"].float()
    loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    assert_close(loss, golden["bce_sum"], atol=2e-5, rtol=1e-5)
    loss.backward()
    expected = golden_gradients(golden, tmp_path, case)
    found = {name: parameter.grad for name, parameter in head.named_parameters()}
    assert_close(
        found, {name: value.data for name, value in expected.items()}, atol=5e-5, rtol=1e-4
    )


@pytest.mark.parametrize("case", CASES)
def test_golden_attention(case, tmp_path):
    golden = load_golden(f"glori/glori_tiny_{case}.npz")
    attention = golden_head(golden, tmp_path, case).attention(golden_levels(golden))
    assert_close(attention, golden["attention"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": 2},
        {"blocks": 1, "class_skip": False},
        {"blocks": 2, "temperature": True, "pyramid": (3, 2)},
    ],
)
def test_equals_one_finding_at_a_time(options):
    head = small(**options)
    if head.temperature is not None:
        torch.nn.init.normal_(head.temperature[-2].weight)
    levels = random_levels(head.blocks)
    assert_close(head(levels), slow_logits(head, levels).float(), atol=1e-5, rtol=1e-5)


def test_the_temperature_sharpens_attention_and_starts_as_published():
    levels = random_levels(4)
    plain, head = small(), small(temperature=True)
    head.load_state_dict(plain.state_dict(), strict=False)
    assert_close(head(levels), plain(levels))
    torch.nn.init.constant_(head.temperature[-2].bias, 2.0)

    def entropy(weights):
        return -(weights * weights.log()).sum(-1)

    assert (entropy(head.attention(levels)) < entropy(plain.attention(levels))).all()
    torch.nn.init.constant_(head.temperature[-2].bias, 0.0)
    head(levels).sum().backward()
    assert head.temperature[-2].weight.grad.abs().sum() > 0


def test_attention_is_over_the_patches_and_follows_them():
    levels = random_levels(4)
    order = torch.randperm(16)
    moved = [level._replace(patches=level.patches[:, order]) for level in levels]
    head = small()
    weights = head.attention(levels)
    assert weights.shape == (3, 4, 5, 16)
    assert_close(weights.sum(-1), torch.ones(3, 4, 5))
    assert_close(head.attention(moved), weights[..., order], atol=1e-6, rtol=1e-5)
    assert_close(head(moved), head(levels), atol=1e-5, rtol=1e-5)


def test_without_class_tokens_the_mean_patch_takes_their_place():
    levels = random_levels(4, with_class=False)
    filled = [level._replace(cls=level.patches.mean(1)) for level in levels]
    head = small()
    assert_close(head(levels), head(filled))


def test_queries_are_fixed_unless_learnt():
    fixed, learnt = small(), small(learn_queries=True)
    assert "queries" in fixed.state_dict()
    assert "queries" not in dict(fixed.named_parameters())
    levels = random_levels(4)
    assert_close(learnt(levels), fixed(levels))
    learnt(levels).sum().backward()
    assert learnt.queries.grad.abs().sum() > 0


def test_every_parameter_learns_and_dropout_only_acts_in_training():
    head = small(temperature=True, pyramid=(2,), learn_queries=True, dropout=0.5)
    torch.nn.init.normal_(head.temperature[-2].weight)
    levels = random_levels(4)
    assert_close(head(levels), head(levels), atol=0, rtol=0)
    head.train()
    first = head(levels)
    assert not torch.allclose(first, head(levels), atol=1e-3)
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_weights_start_as_published():
    torch.manual_seed(0)
    head = GLoRI([64] * 4, 200, width=128)
    expected = {
        "queries": 1.0,
        "classifier.weight": math.sqrt(2 / (4 * 64 + 128 + 200)),
        "attend.q.weight": math.sqrt(2 / (4 * 128)),
        "attend.kv.weight": math.sqrt(2 / (4 * 128)),
        "attend.proj.weight": 1 / math.sqrt(3 * 128),
        "embed.weight": 1 / math.sqrt(3 * 256),
        "mlp.0.weight": 1 / math.sqrt(3 * 128),
        "mlp.3.weight": 1 / math.sqrt(3 * 2048),
    }
    state = head.state_dict()
    for name, std in expected.items():
        assert state[name].std().item() == pytest.approx(std, rel=0.03), name
    for name in ("classifier.bias", "attend.q.bias", "attend.kv.bias", "attend.proj.bias"):
        assert state[name].abs().max() == 0, name
    assert state["embed.bias"].abs().max() > 0
    assert head.norm_mlp.eps == 1e-5


@pytest.mark.parametrize(
    ("findings", "class_skip", "total", "trained"),
    [(40, False, 8_723_496, 8_692_776), (40, True, 8_887_336, None), (1, True, 8_667_649, None)],
)
def test_published_sizes(findings, class_skip, total, trained):
    with torch.device("meta"):
        head = GLoRI([1024] * 24, findings, class_skip=class_skip)
    n_trained = sum(p.numel() for p in head.parameters())
    assert n_trained + head.queries.numel() == total
    assert trained in (None, n_trained)


def test_levels_of_several_grids_are_refused():
    levels = [*random_levels(1, grid=(4, 4)), *random_levels(1, grid=(2, 2))]
    with pytest.raises(InputError, match=r"grids \[\(4, 4\), \(2, 2\)\] with \[16, 4\] patches"):
        small(blocks=2)(levels)
    other_widths = [*random_levels(1, dim=8), *random_levels(1, dim=12)]
    assert small((4, 8, 12), blocks=2)(other_widths).shape == (3, 5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"blocks": 5}, "blocks must be from 1 to 4, got 5"),
        ({"heads": 5}, "heads must divide the width"),
        ({"width": 0}, "positive widths"),
        ({"dropout": 1.0}, "dropout from 0 to below 1"),
        ({"pyramid": (4, 2, 1)}, r"number divides the width, got \[4, 2, 1\] for width 32"),
        ({"pyramid": (0,)}, "positive kernels"),
    ],
)
def test_impossible_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        small(**options)

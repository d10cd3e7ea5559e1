import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import Tokens
from cxrssl.errors import InputError
from cxrssl.heads.classification import AttentiveProbe
from tests.golden import load_golden, subset
from tests.heads.classification.tokens import random_levels

NAMES = {
    "pooler.query_tokens": "query",
    "pooler.cross_attention_block.norm1": "norm_keys",
    "pooler.cross_attention_block.norm2": "norm_mlp",
    "pooler.cross_attention_block.xattn": "attention",
    "pooler.cross_attention_block.mlp.fc1": "mlp.0",
    "pooler.cross_attention_block.mlp.fc2": "mlp.2",
    "linear": "classifier",
}


def test_golden_of_chexworld():
    golden = load_golden("chexworld/finetune.npz")
    probe = AttentiveProbe([32], 5, heads=4)
    state = {}
    for name, value in subset(golden, "attn/").items():
        theirs = next((prefix for prefix in NAMES if name.startswith(prefix)), None)
        if theirs is not None:
            state[NAMES[theirs] + name.removeprefix(theirs)] = value
    probe.load_state_dict(state)
    patches = golden["fc/tokens"]
    logits = probe([Tokens(None, patches[:, :0], patches, (4, 4))])
    assert_close(logits, golden["attn/logits"], atol=2e-5, rtol=1e-5)


def test_one_query_a_finding_equals_a_probe_for_each():
    levels = random_levels(1)
    torch.manual_seed(0)
    probe = AttentiveProbe([12], 3, heads=4, per_finding=True)
    logits = probe(levels)
    assert logits.shape == (3, 3)
    state = probe.state_dict()
    for finding in range(3):
        alone = AttentiveProbe([12], 1, heads=4)
        rows = slice(finding, finding + 1)
        alone.load_state_dict(
            state
            | {
                "query": state["query"][:, rows],
                "classifier.weight": state["classifier.weight"][rows],
                "classifier.bias": state["classifier.bias"][rows],
            }
        )
        assert_close(alone(levels), logits[:, rows], atol=1e-6, rtol=1e-5)


def test_order_of_the_patches_does_not_matter_and_the_class_token_is_not_seen():
    (level,) = random_levels(1)
    probe = AttentiveProbe([12], 5, heads=2)
    moved = level._replace(cls=None, patches=level.patches[:, torch.randperm(16)])
    assert_close(probe([moved]), probe([level]), atol=1e-6, rtol=1e-5)


def test_weights_start_as_published():
    torch.manual_seed(0)
    probe = AttentiveProbe([768], 14)
    for weight in (probe.query, probe.attention.kv.weight, probe.mlp[0].weight):
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert probe.attention.q.bias.abs().max() == 0
    assert probe.norm_keys.eps == 1e-5
    # q, kv and proj, the MLP of 4 x 768, two norms, the query and the Linear.
    block = 4 * 768 * 769 + 768 * 3072 * 2 + 3072 + 768 + 4 * 768
    assert sum(p.numel() for p in probe.parameters()) == block + 768 + 769 * 14


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "heads must divide the width, got 12 heads of width 32"),
        ({"heads": 0}, "got 0 heads"),
        ({"heads": 4, "mlp_ratio": 0.0}, "mlp_ratio must be positive, got 0.0"),
    ],
)
def test_impossible_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        AttentiveProbe([32], 5, **options)

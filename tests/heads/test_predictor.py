import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads import ActionToken, Policy, Predictor

CONDITIONINGS = ("concat", "residual", "token")


def small(actions=5, **options):
    torch.manual_seed(0)
    return Predictor(16, actions, width=24, depth=2, heads=2, **options)


def inputs(batch=3):
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(batch, 4, 24, generator=generator)
    codes = torch.randn(batch, 6, 24, generator=generator)
    return context, codes, torch.rand(batch, 5, generator=generator)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_predicts_a_token_for_each_code_and_hears_the_action(conditioning):
    predictor = small(conditioning=conditioning)
    context, codes, action = inputs()
    predicted = predictor(context, codes, action)
    assert predicted.shape == (3, 6, 16)
    assert not torch.allclose(predicted, predictor(context, codes, action + 0.5), atol=1e-6)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_recomputed_blocks_keep_less_and_change_no_gradient(conditioning):
    predictor = small(conditioning=conditioning)
    context, codes, action = inputs()
    used = [p for name, p in predictor.named_parameters() if not name.startswith("embed")]
    grads, kept = [], []
    for flag in (False, True):
        predictor.activation_checkpointing = flag
        saved = []
        with saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            loss = predictor(context, codes, action).square().sum()
        grads.append(torch.autograd.grad(loss, used))
        kept.append(sum(saved))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b)
    assert kept[1] < kept[0] / 2


def test_conditionings_are_what_they_say():
    context, codes, action = inputs()
    reference = small(actions=0)
    target = reference.mask_token + codes

    concat, residual = small(), small(conditioning="residual")
    changed = concat.policy(target, action)
    for predictor, tokens in ((concat, changed), (residual, target + changed)):
        predictor.mask_token.data.copy_(reference.mask_token.data)
        predictor.policy.load_state_dict(concat.policy.state_dict())
        expected = _plain(predictor, torch.cat([context, tokens], 1), 6)
        assert_close(predictor(context, codes, action), expected)

    token = small(conditioning="token")
    token.mask_token.data.copy_(reference.mask_token.data)
    extra = token.action_token(action)
    assert extra.shape == (3, 1, 24)
    expected = _plain(token, torch.cat([context, extra, target], 1), 6)
    assert_close(token(context, codes, action), expected)


def _plain(predictor, x, n):
    """Return what whole blocks make of the last n tokens."""
    for block in predictor.blocks:
        x = block(x)
    return predictor.proj(predictor.norm(x[:, -n:]))


def test_without_actions_there_is_no_policy_and_none_is_taken():
    predictor = small(actions=0)
    context, codes, action = inputs()
    assert not any("policy" in name for name, _ in predictor.named_parameters())
    assert predictor(context, codes).shape == (3, 6, 16)
    with pytest.raises(InputError, match="takes 0 numbers of an action, got 5"):
        predictor(context, codes, action)
    with pytest.raises(InputError, match="takes 5 numbers of an action, got none"):
        small()(context, codes)


def test_order_of_the_places_does_not_matter():
    predictor = small()
    context, codes, action = inputs()
    order = torch.randperm(6)
    predicted = predictor(context, codes, action)
    assert_close(predictor(context, codes[:, order], action), predicted[:, order])


def test_weights_start_as_published():
    predictor = Predictor(768, 5)
    trained = sum(p.numel() for p in predictor.parameters())
    assert trained == 11_759_616 - 75_264  # without the fixed table of positions
    weight = predictor.blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert predictor.policy.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert predictor.proj.bias.abs().max() == 0
    assert predictor.norm.eps == 1e-6


def test_fourier_features_of_an_action_by_hand():
    token = ActionToken(1, 4, bands=2, highest=3.0)
    # sin and cos of pi a and 3 pi a, then a itself.
    expected = torch.tensor([[1.0, -1.0, 0.0, 0.0, 0.5]])
    assert_close(token.features(torch.tensor([[0.5]])), expected, atol=1e-6, rtol=0)


def test_policy_repeats_the_action_for_every_token():
    policy = Policy(4, 2)
    tokens, action = torch.randn(2, 3, 4), torch.randn(2, 2)
    expected = policy.mlp(torch.cat([tokens, action[:, None].expand(-1, 3, -1)], -1))
    assert_close(policy(tokens, action), expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 26, "heads": 2}, "multiple of 4 and of heads"),
        ({"width": 24, "heads": 5}, "multiple of 4 and of heads"),
        ({"conditioning": "film"}, "conditioning must be"),
    ],
)
def test_impossible_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        Predictor(16, 5, **options)

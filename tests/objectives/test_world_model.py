import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, pick_tokens
from cxrssl.errors import InputError
from cxrssl.heads import Predictor
from cxrssl.losses import token_spread
from cxrssl.objectives import WorldModel
from cxrssl.objectives.jepa_weights import load_jepa
from cxrssl.views import WorldViews
from tests.backbones.official import chexworld_state, save_chexworld
from tests.golden import SHARED, load_golden, subset
from tests.objectives.jepa_training import (
    small_backbone,
    small_predictor,
    small_world,
    world_batches,
)
from tests.objectives.training import loader, quiet_trainer

TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}


def micro_predictor(dim, actions):
    return Predictor(dim, actions, width=24, depth=2, heads=4)


def micro(in_chans=3, **options):
    torch.manual_seed(0)
    backbone = ViT(
        "vit_tiny",
        img_size=64,
        in_chans=in_chans,
        class_token=False,
        position="sincos",
        init="jepa",
        width=32,
        depth=2,
        heads=4,
    )
    views = WorldViews(image_size=64, in_chans=in_chans, min_keep=1)
    return WorldModel(backbone, views=views, predictor=micro_predictor, **options)


def load_exactly(objective, state):
    """Load a released state as it is: the golden images are normalised as it wants them."""
    load_jepa(objective, state, "golden")
    for vit, name in ((objective.backbone, "encoder"), (objective.encoder, "target_encoder")):
        own = vit.vit.patch_embed.proj
        with torch.no_grad():
            own.weight.copy_(state[f"{name}.patch_embed.proj.weight"])
            own.bias.copy_(state[f"{name}.patch_embed.proj.bias"])


@pytest.fixture
def golden():
    return load_golden("chexworld/model_micro.npz")


def batch_of(golden):
    order = golden["out/shuffle"]
    pair = {
        "context": ("image_aug1", "image_aug2"),
        "target": ("image1", "image2"),
        "action": ("aug_params1", "aug_params2"),
        "offset": ("rel_pos_12", "rel_pos_21"),
    }
    batch = {
        name: torch.stack([golden[f"in/{first}"], golden[f"in/{second}"]], 1)
        for name, (first, second) in pair.items()
    }
    for name, key in (("context_index", "masks_enc"), ("target_index", "masks_pred")):
        batch[name] = torch.stack([golden[f"in/{key}"], golden[f"in/{key}"][order]], 1)
    return batch


def total(objective, batch):
    terms = objective.loss_terms(batch, 0.0)
    return sum(objective.weight(name) * term for name, term in terms.items())


def test_golden_forward(golden):
    objective = micro()
    load_exactly(objective, subset(golden, "sd/"))
    batch = batch_of(golden)
    index = batch["target_index"]
    for view in (0, 1):
        h = pick_tokens(objective.targets(batch["target"][:, view]), index[:, view])
        assert_close(h, golden[f"out/h{view + 1}"], **TOLERANCE)
        context = objective.encode_context(
            batch["context"][:, view], batch["context_index"][:, view]
        )
        action = batch["action"][:, view]
        own = objective.predict(context, target_index=index[:, view], action=action)
        assert_close(own, golden[f"out/z{view + 1}{view + 1}"], **TOLERANCE)
        other = objective.predict(
            context,
            target_index=index[:, 1 - view],
            offset=batch["offset"][:, 1 - view],
            action=action,
        )
        assert_close(other, golden[f"out/z{2 - view}{view + 1}"], **TOLERANCE)


def official_name(name):
    """Return the released name of one of our trained parameters."""
    for ours, theirs in (
        ("backbone.vit.", "encoder."),
        ("predictor.embed.", "predictor.predictor_embed."),
        ("predictor.blocks.", "predictor.predictor_blocks."),
        ("predictor.norm.", "predictor.predictor_norm."),
        ("predictor.proj.", "predictor.predictor_proj."),
        ("predictor.policy.mlp.", "predictor.policy_net."),
    ):
        name = name.replace(ours, theirs)
    return name


def test_golden_loss_and_gradients(golden):
    objective = micro().train()
    load_exactly(objective, subset(golden, "sd/"))
    batch = batch_of(golden)
    terms = objective.loss_terms(batch, 0.0)
    assert_close(terms["local"], golden["out/loss_intra"], **TOLERANCE)
    assert_close(terms["global"], golden["out/loss_extra"], **TOLERANCE)
    loss = total(objective, batch)
    assert_close(loss, golden["out/loss"], **TOLERANCE)
    loss.backward()
    expected = subset(golden, "grad/")
    ours = {
        official_name(name): p.grad for name, p in objective.named_parameters() if p.requires_grad
    }
    assert set(ours) == set(expected)
    for name, gradient in ours.items():
        assert_close(gradient, expected[name], **TOLERANCE)
    norm = torch.nn.utils.clip_grad_norm_(objective.clip_groups()["all"], 1e9)
    assert_close(norm, golden["out/grad_norm"], atol=1e-4, rtol=1e-5)
    assert all(p.grad is None for p in objective.teacher.parameters())


@pytest.mark.parametrize(
    ("key", "options", "zero_action"),
    [
        ("loss_smooth_l1", {"distance": "smooth_l1"}, False),
        ("loss_zero_action", {}, True),
        ("loss_no_relpos", {"offset": False}, False),
        ("loss_intra_only", {"weights": {"local": 1.0, "global": 0.0}}, False),
        ("loss_no_extra_mean", {"weights": {"local": 1.0, "global": 1.0}}, False),
        ("loss_target_last2", {"target_blocks": 2}, False),
    ],
)
def test_golden_switches(golden, key, options, zero_action):
    objective = micro(**options)
    load_exactly(objective, subset(golden, "sd/"))
    batch = batch_of(golden)
    if zero_action:
        batch["action"] = torch.zeros_like(batch["action"])
    assert_close(total(objective, batch), golden[f"out/{key}"], **TOLERANCE)


def test_golden_spread_of_predictions(golden):
    spreads = [token_spread(golden[f"out/z{name}"]).mean() for name in ("11", "22", "21", "12")]
    assert_close(torch.stack(spreads).mean(), golden["out/pred_std"], **TOLERANCE)


def test_every_weight_of_a_released_file_is_taken_over(tmp_path):
    state = chexworld_state()
    path = save_chexworld(tmp_path / "chexworld_pretrained.tar", state)
    objective = micro()
    objective.take_over(path)
    ours = {
        official_name(name).replace("teacher.module.vit.", "target_encoder."): p
        for name, p in objective.named_parameters()
    }
    assert set(ours) == set(state) - {"predictor.predictor_pos_embed"}
    for name, value in ours.items():
        if "patch_embed" not in name:  # the normalisation is folded into these
            assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("in_chans", [1, 3])
def test_released_file_gives_the_released_tokens_and_predictions(tmp_path, golden, in_chans):
    path = save_chexworld(tmp_path / "chexworld_pretrained.tar", subset(golden, "sd/"))
    reference, objective = micro(), micro(in_chans=in_chans)
    load_exactly(reference, subset(golden, "sd/"))
    said = objective.take_over(path)
    assert "Context encoder, target encoder" in said
    assert path in said

    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = (grey - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    ours = ((grey - objective.views.mean) / objective.views.std).expand(-1, in_chans, -1, -1)
    assert_close(objective.targets(ours), reference.targets(theirs), atol=1e-4, rtol=1e-4)
    seen, expected = objective.encode_context(ours), reference.encode_context(theirs)
    assert_close(seen, expected, atol=1e-4, rtol=1e-4)
    assert_close(objective.predict(seen), reference.predict(expected), atol=1e-4, rtol=1e-4)


def test_released_file_starts_a_run_but_not_a_resumed_one(tmp_path, golden):
    path = save_chexworld(tmp_path / "chexworld_pretrained.tar", subset(golden, "sd/"))
    objective = micro(init_from=path)
    start = objective.predictor.proj.weight.detach().clone()
    trainer = quiet_trainer(max_steps=1, enable_checkpointing=False)
    trainer.fit(objective, loader([batch_of(golden)]))
    released = golden["sd/predictor.predictor_proj.weight"]
    assert not torch.equal(start, released)
    assert (objective.predictor.proj.weight - released).abs().max() < 1e-3
    # A test after training keeps what was trained.
    trained = objective.predictor.proj.weight.detach().clone()
    batch = batch_of(golden) | {"image_number": torch.arange(3)}
    trainer.test(objective, loader([batch]), verbose=False)
    assert torch.equal(objective.predictor.proj.weight, trained)

    # Neither a resumed run nor a test of its checkpoint asks for the file again.
    other = micro(init_from=str(tmp_path / "gone.tar"))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    resumed = quiet_trainer(max_steps=1)
    resumed.fit(other, loader([batch_of(golden)]), ckpt_path=tmp_path / "own.ckpt")
    assert_close(other.predictor.proj.weight, trained)
    tested = micro(init_from=str(tmp_path / "gone.tar"))
    resumed.test(tested, loader([batch]), ckpt_path=tmp_path / "own.ckpt", verbose=False)
    assert torch.equal(tested.predictor.proj.weight, trained)
    # A trainer that has just used a checkpoint does not forget the file of the next model.
    fresh = micro(init_from=path)
    resumed.validate(fresh, loader([batch]), verbose=False)
    assert torch.equal(fresh.predictor.proj.weight, released)


def test_released_file_can_be_tested_without_training(tmp_path, golden):
    path = save_chexworld(tmp_path / "chexworld_pretrained.tar", subset(golden, "sd/"))
    objective = micro(init_from=path)
    batch = batch_of(golden) | {"image_number": torch.arange(3)}
    quiet_trainer().test(objective, loader([batch]), verbose=False)
    released = golden["sd/predictor.predictor_proj.weight"]
    assert torch.equal(objective.predictor.proj.weight, released)


def test_released_predictor_that_does_not_fit_is_refused(golden, tmp_path):
    path = save_chexworld(tmp_path / "chexworld_pretrained.tar", subset(golden, "sd/"))
    with pytest.raises(InputError, match="is of a model that is told an action"):
        micro(action=False).take_over(path)
    deeper = micro()
    deeper.predictor = Predictor(32, 5, width=24, depth=3, heads=4)
    before = deeper.backbone.vit.norm.weight.clone()
    with pytest.raises(InputError, match=r"predictor of .* does not fit .*: blocks\.2"):
        deeper.take_over(path)
    assert torch.equal(deeper.backbone.vit.norm.weight, before)
    other = micro()
    other.predictor.conditioning = "residual"
    with pytest.raises(InputError, match="trained with conditioning 'concat'"):
        other.take_over(path)


def test_released_weights_of_another_meaning_are_taken_with_a_warning(golden, tmp_path):
    path = save_chexworld(tmp_path / "chexworld_pretrained.tar", subset(golden, "sd/"))
    with pytest.warns(UserWarning, match="trained with axis_order='published'"):
        micro(axis_order="unified").take_over(path)
    normalised = micro()
    normalised.views.normalise_action = True
    with pytest.warns(UserWarning, match="trained on raw actions"):
        normalised.take_over(path)


def test_names_and_shapes_are_those_of_the_released_file():
    path = SHARED / "golden" / "chexworld" / "official_keys_vitb.json"
    if not path.is_file():
        pytest.skip("the list of released keys is not beside this checkout")
    keys = json.loads(path.read_text())
    keys = keys.get("keys", keys)
    backbone = ViT("vit_base", in_chans=3, class_token=False, position="sincos")
    objective = WorldModel(backbone)
    ours = {
        official_name(name).replace("teacher.module.vit.", "target_encoder."): list(p.shape)
        for name, p in objective.named_parameters()
    }
    theirs = {key: shape for key, shape in keys.items() if key != "predictor.predictor_pos_embed"}
    assert ours == {key: list(shape) for key, shape in theirs.items()}
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    assert trained == 97_330_944


def test_loss_starts_near_one():
    """Targets have unit variance and predictions start small."""
    views = WorldViews(image_size=64, patch_size=16, min_keep=1)
    torch.manual_seed(0)
    backbone = ViT("vit_small", img_size=64, class_token=False, position="sincos", init="jepa")
    objective = WorldModel(backbone, views=views)
    image = (np.indices((90, 100)).sum(0) % 256).astype(np.uint8)
    samples = [views(image, np.random.default_rng(number)) for number in range(4)]
    batch = views.collate(samples, np.random.default_rng(0))
    for term in objective.loss_terms(batch, 0.0).values():
        assert term.item() == pytest.approx(1.0, abs=0.2)


ABLATIONS = [
    ({}, {"local", "global"}),
    ({"weights": {"global": 0.0}}, {"local"}),
    ({"domain": "off"}, {"local", "global"}),
    ({"domain": "off", "weights": {"global": 0.0}}, {"local"}),
    ({"domain": "separate"}, {"local", "global", "domain"}),
    ({"domain": "separate", "weights": {"local": 0.0, "global": 0.0}}, {"domain"}),
    ({"weights": {"local": 0.0}}, {"global"}),
    ({"elsewhere": "all"}, {"local", "global"}),
    ({"weights": {"variance": 1.0}}, {"local", "global", "variance"}),
]


@pytest.mark.parametrize(("options", "terms"), ABLATIONS)
def test_every_task_can_be_left_out_and_every_weight_trains(options, terms):
    objective = small_world(**options).train()
    [batch] = world_batches(1)
    found = objective.loss_terms(batch, 0.0)
    assert set(found) == terms
    sum(found.values()).backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_without_domain_the_context_is_the_clean_crop():
    [batch] = world_batches(1)
    changed = batch | {"context": torch.randn_like(batch["context"])}
    for domain, equal in (("off", True), ("unified", False)):
        objective = small_world(domain=domain)
        before, after = (objective.loss_terms(b, 0.0)["local"] for b in (batch, changed))
        assert torch.equal(before, after) == equal


@pytest.mark.parametrize(
    ("options", "key", "told"),
    [
        ({}, "action", True),
        ({"action": False}, "action", False),
        ({"domain": "off"}, "action", False),
        ({}, "offset", True),
        ({"offset": False}, "offset", False),
    ],
)
def test_conditions_matter_only_where_they_are_told(options, key, told):
    objective = small_world(**options)
    [batch] = world_batches(1)
    changed = batch | {key: batch[key] * 0.5}
    before, after = (objective.loss_terms(b, 0.0)["global"] for b in (batch, changed))
    assert (before == after) == (not told)


def test_all_patches_elsewhere_equal_a_prediction_of_each():
    objective = small_world(elsewhere="all", weights={"local": 0.0, "global": 1.0})
    [batch] = world_batches(1)
    errors = []
    for view in (0, 1):
        context = objective.encode_context(
            batch["context"][:, 1 - view], batch["context_index"][:, 1 - view]
        )
        predicted = objective.predict(
            context,
            offset=batch["offset"][:, view],
            action=batch["action"][:, 1 - view],
        )
        errors.append((predicted - objective.targets(batch["target"][:, view])).pow(2).mean())
    term = objective.loss_terms(batch, 0.0)["global"]
    assert_close(term, torch.stack(errors).mean(), atol=1e-5, rtol=1e-5)


def test_unified_axes_give_targets_the_codes_of_contexts():
    objective = small_world(axis_order="unified")
    index = torch.arange(16)[None]
    codes = objective._codes(index, order=objective.target_order)
    assert torch.equal(codes, objective._codes(index))
    published = small_world()
    assert not torch.equal(published._codes(index, order=published.target_order), codes)


BACKBONES = [
    {"class_token": True},
    {"registers": 2},
    {"position": "learned"},
    {"drop_path": 0.3},
    {"activation_checkpointing": True},
    {"layer_scale": 0.1},
    {"depth": 1},
]


@pytest.mark.parametrize("options", BACKBONES)
@pytest.mark.parametrize("domain", ["unified", "separate"])
def test_any_backbone_trains_whole(options, domain):
    torch.manual_seed(0)
    views = WorldViews(image_size=32, patch_size=8, min_keep=1)
    objective = WorldModel(
        small_backbone(**options), views=views, predictor=small_predictor, domain=domain
    ).train()
    [batch] = world_batches(1)
    with torch.autocast("cpu", torch.bfloat16):
        terms = objective.loss_terms(batch, 0.0)
    assert all(term.dtype == torch.float32 for term in terms.values())
    sum(terms.values()).backward()
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_places_keep_their_codes_on_a_finer_grid():
    torch.manual_seed(0)
    coarse = small_world()
    fine = WorldModel(
        ViT("vit_tiny", img_size=64, patch_size=8, width=32, depth=2, heads=2),
        views=WorldViews(image_size=64, patch_size=8),
        predictor=small_predictor,
        code_grid=4,
    )
    offset = torch.tensor([[0.3, -0.2, 0.0, 0.0], [0.3, 0.1, 1.0, 0.6]])
    for given in (None, offset):
        # Four patches of the fine grid meet in the centre of one of the coarse grid.
        index = torch.tensor([[2 * 8 + 4, 2 * 8 + 5, 3 * 8 + 4, 3 * 8 + 5]]).expand(2, -1)
        rows, columns = fine._places(index, given)
        coarse_index = torch.tensor([[1 * 4 + 2]]).expand(2, -1)
        expected = coarse._places(coarse_index, given)
        assert_close(rows.mean(1, keepdim=True), expected[0])
        assert_close(columns.mean(1, keepdim=True), expected[1])


def test_wanted_targets_are_those_of_a_whole_pass():
    [batch] = world_batches(1)
    images, index = batch["target"][:, 0], batch["target_index"][:, 0]
    for blocks in (1, 2):
        objective = small_world(target_blocks=blocks)
        whole = pick_tokens(objective.targets(images), index)
        assert_close(objective.targets(images, index), whole, atol=1e-5, rtol=1e-5)
    assert whole.mean(-1).abs().max() < 1e-5
    assert_close(whole.std(-1, correction=0), torch.ones(4, 4), atol=1e-3, rtol=0)


def test_embedding_is_the_mean_patch_token_of_the_target_encoder():
    objective = small_world()
    images = torch.randn(2, 1, 32, 32)
    expected = objective.encoder(images).patches.mean(1)
    for pooling in ("class", "mean", "both"):
        assert_close(objective.embed(images, pooling), expected)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"domain": "both"}, "domain must be one of unified, separate, off, got 'both'"),
        ({"elsewhere": "none"}, "elsewhere must be one of masked, all"),
        ({"axis_order": "old"}, "axis_order must be one of published, unified"),
        ({"weights": {"global": -1.0}}, "weights must not be negative, got {'global': -1.0}"),
        ({"code_grid": 0}, "code_grid must be positive, got 0"),
        ({"weights": {"domain": 0.5}}, "no effect with domain='unified'"),
        ({"weights": {"local": 0.0, "global": 0.0}}, "nothing is left to train"),
        ({"weights": {"layout": 1.0}}, "no loss term is called layout"),
        ({"target_blocks": 3}, r"target_blocks must be in \[1, 2\], got 3"),
        ({"distance": "l1"}, "distance must be 'mse' or 'smooth_l1', got 'l1'"),
        ({"views": WorldViews(image_size=64, patch_size=8)}, "grid of 4 x 4"),
        ({"views": WorldViews(image_size=64, patch_size=16, min_keep=1)}, "patch_size of both"),
    ],
)
def test_impossible_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        small_world(**options)

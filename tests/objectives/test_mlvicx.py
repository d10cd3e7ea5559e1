import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import ViT, load_encoder
from cxrssl.errors import InputError
from cxrssl.heads import Projector
from cxrssl.losses import vicreg_terms
from cxrssl.objectives import MLVICX
from tests.objectives.siamese_training import batches, small_convnet, small_mlvicx, small_vit
from tests.objectives.training import loader, quiet_trainer

TERMS = {
    f"{branch}_{part}"
    for branch in ("global", "local")
    for part in ("invariance", "variance", "covariance")
}


@pytest.fixture
def batch():
    [batch] = batches(small_mlvicx().views, 1)
    return batch


def total(objective, batch):
    return sum(objective.weight(n) * t for n, t in objective.loss_terms(batch, 0.0).items())


def test_terms_are_those_of_both_embeddings(batch):
    objective, reference = small_mlvicx(), small_mlvicx()
    terms = objective.loss_terms(batch, 0.0)
    first, second = (reference.embeddings(view) for view in batch["views"].unbind(1))
    assert set(terms) == TERMS
    for branch in ("global", "local"):
        for part, value in vicreg_terms(first[branch], second[branch]).items():
            assert_close(terms[f"{branch}_{part}"], value)


def test_lambda_local_scales_the_local_terms(batch):
    objective = small_mlvicx(lambda_local=0.5, weights={"local_variance": 10.0})
    assert objective.weight("local_variance") == 5.0
    assert objective.weight("local_invariance") == 12.5
    assert objective.weight("global_invariance") == 25.0


@pytest.mark.parametrize("kind", ["vit", "convnet"])
@pytest.mark.parametrize("gating", ["inline", "side", "off"])
def test_every_parameter_learns_whatever_the_gating(batch, kind, gating):
    backbone = small_vit() if kind == "vit" else small_convnet()
    objective = small_mlvicx(backbone, gating=gating, fusion_size=16)
    total(objective, batch).backward()
    # Patch tokens alone are trained: the class token of the last block has no reader.
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
    gated = any("gate" in name for name, _ in objective.named_parameters())
    assert gated == (gating != "off")
    in_backbone = any("gate" in name for name, _ in objective.backbone.named_parameters())
    assert in_backbone == (gating == "inline")


def test_gates_are_in_line_in_a_convnet_and_aside_in_a_vit():
    assert small_mlvicx(small_convnet()).gating == "inline"
    assert small_mlvicx(small_vit()).gating == "side"


def test_in_line_gates_leave_a_vit_as_it_was_at_the_start(batch):
    images = batch["views"][:, 0]
    torch.manual_seed(0)
    plain = small_vit().eval()
    torch.manual_seed(0)
    gated = small_mlvicx(small_vit(), gating="inline").backbone.eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    assert_close(gated(images).patches, plain(images).patches)


def test_levels_of_a_vit_are_equally_spaced():
    def levels(depth, **options):
        backbone = ViT("vit_tiny", img_size=32, patch_size=8, width=32, heads=2, depth=depth)
        return small_mlvicx(backbone, **options).levels

    assert levels(12) == [2, 5, 8, 11]
    assert levels(24) == [5, 11, 17, 23]
    assert levels(2) == [0, 1]
    assert levels(4, levels=[1, -1]) == [1, 3]
    for wrong in ([0, 1], [3, 1], [-9, 3], []):
        with pytest.raises(InputError, match="levels must rise and end with the last"):
            levels(4, levels=wrong)


def test_the_stem_of_a_vit_can_be_a_level(batch):
    objective = small_mlvicx(stem=True)
    assert len(objective.norms) == 3
    total(objective, batch).backward()
    with pytest.raises(InputError, match="stem is for a ViT"):
        small_mlvicx(small_convnet(), stem=True)


def test_a_branch_without_weight_is_not_built(batch):
    objective = small_mlvicx(lambda_local=0.0)
    assert not hasattr(objective, "local_head")
    assert {n.split("_")[0] for n in objective.loss_terms(batch, 0.0)} == {"global"}
    total(objective, batch).backward()
    assert all(p.grad is not None for p in objective.parameters())  # as DDP needs it
    with pytest.raises(InputError, match="all terms of both branches have weight 0"):
        small_mlvicx(weights=dict.fromkeys(TERMS, 0.0))


def test_published_heads_start_with_no_active_hinge():
    """With a batch norm after the last layer each unbiased deviation is above 1."""
    torch.manual_seed(0)
    objective = MLVICX(small_convnet(), views=small_mlvicx().views, fusion_size=16)
    [batch] = batches(objective.views, 1, batch_size=3)
    terms = objective.loss_terms(batch, 0.0)
    assert terms["global_variance"] < 1e-3
    assert terms["local_variance"] < 1e-3
    convs = [p.requires_grad for p in objective.local_head.fusion.parameters()]
    assert all(convs)


def test_level_convolutions_can_keep_their_start_as_published():
    objective = small_mlvicx(train_level_convs=False)
    assert not any(p.requires_grad for p in objective.local_head.fusion.parameters())
    assert all(
        p.requires_grad for n, p in objective.local_head.named_parameters() if "fusion" not in n
    )


def test_watches_levels_and_embeddings(batch):
    objective = small_mlvicx()
    objective.monitoring = True
    objective.loss_terms(batch, 0.0)
    measures = ("std", "active_hinges", "effective_rank", "correlation")
    wanted = {f"{branch}_{measure}" for branch in ("global", "local") for measure in measures}
    assert set(objective.monitored) == wanted | {"level0_std", "level1_std"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"gating": "both"}, "gating must be"),
        ({"lambda_local": -1.0}, "lambda_local must be"),
        ({"weights": {"local_mean": 1.0}}, "no loss term is called local_mean"),
    ],
)
def test_options_out_of_range_are_refused(options, part):
    with pytest.raises(InputError, match=part):
        small_mlvicx(**options)


@pytest.mark.parametrize("kind", ["vit", "convnet"])
def test_in_line_gates_are_saved_with_the_encoder(tmp_path, kind):
    backbone = small_vit() if kind == "vit" else small_convnet()
    objective = small_mlvicx(backbone, gating="inline", fusion_size=16)
    for name, parameter in objective.backbone.named_parameters():
        if "gate" in name:
            parameter.data.normal_()
    trainer = quiet_trainer(max_steps=1)
    [batch] = batches(objective.views, 1)
    trainer.fit(objective, loader([{**batch, "image_number": torch.arange(4)}]))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    images = batch["views"][:, 0]
    encoder = load_encoder(tmp_path / "run.ckpt")
    assert type(encoder) is type(backbone)
    assert_close(encoder(images).image, objective.tokens(images).image)
    plain = load_encoder(tmp_path / "run.ckpt", drop_gates=True)
    assert plain.arguments["gates"] == []
    objective.backbone.drop_gates()
    assert_close(plain(images).image, objective.tokens(images).image)


def test_gates_of_a_vit_take_up_pretrained_weights(tmp_path):
    plain = small_vit()
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    gated = small_vit(gates=[0, 1], gate_kernel=3, weights=str(tmp_path / "plain.pth"))
    assert all(".gate." in key for key in gated.load_report.missing)
    images = torch.randn(2, 1, 32, 32)
    assert_close(gated.eval()(images).patches, plain.eval()(images).patches)


def test_sigreg_takes_embeddings_of_different_widths(batch):
    objective = small_mlvicx(
        weights={"sigreg": 0.1}, global_head=lambda dim: Projector(dim, (12, 8))
    )
    assert torch.isfinite(objective.loss_terms(batch, 0.0)["sigreg"])


def test_gates_that_the_backbone_has_must_be_those_that_are_asked_for():
    gated = small_vit(gates=[0, 1], gate_kernel=3)
    assert small_mlvicx(gated).gating == "inline"
    with pytest.raises(InputError, match="the backbone has gates"):
        small_mlvicx(small_vit(gates=[0], gate_kernel=3))
    for gating in ("side", "off"):
        with pytest.raises(InputError, match="has gates in line, after levels"):
            small_mlvicx(gated, gating=gating)


def test_a_class_token_alone_needs_no_gate(batch):
    objective = small_mlvicx(lambda_local=0.0, pooling="class")
    assert objective.gates is None
    total(objective, batch).backward()
    assert all(p.grad is not None for p in objective.parameters())

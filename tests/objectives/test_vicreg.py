import pytest
import torch
from torch.testing import assert_close

from cxrssl.data import PhantomDataModule
from cxrssl.errors import InputError
from cxrssl.losses import covariance, invariance, variance
from cxrssl.objectives import VICReg
from tests.objectives.siamese_training import (
    batches,
    pair_views,
    small_convnet,
    small_projector,
    small_vicreg,
    small_vit,
)
from tests.objectives.training import loader, quiet_trainer


@pytest.fixture
def batch():
    [batch] = batches(small_vicreg().views, 1)
    return batch


def test_terms_are_those_of_the_expanded_mean_tokens(batch):
    objective = small_vicreg()
    terms = objective.loss_terms(batch, 0.0)
    reference = small_vicreg()
    first, second = (
        reference.expander(reference.backbone(view).patches.mean(1))
        for view in batch["views"].unbind(1)
    )
    assert_close(terms["invariance"], invariance(first, second))
    assert_close(terms["variance"], (variance(first) + variance(second)) / 2)
    assert_close(terms["covariance"], covariance(first) + covariance(second))
    assert [objective.weight(name) for name in terms] == [25, 25, 1]


@pytest.mark.parametrize("pooling", ["mean", "class", "both"])
def test_every_pooling_trains_what_it_takes(batch, pooling):
    objective = small_vicreg(pooling=pooling)
    sum(objective.loss_terms(batch, 0.0).values()).backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
    assert objective.embed(batch["views"][:, 0], "both").shape == (
        4,
        32 if pooling == "mean" else 64,
    )


def test_works_on_a_convnet(batch):
    objective = small_vicreg(small_convnet())
    sum(objective.loss_terms(batch, 0.0).values()).backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_terms_of_weight_0_are_left_out_and_sigreg_comes_by_weight(batch):
    objective = small_vicreg(weights={"covariance": 0.0, "sigreg": 0.1})
    terms = objective.loss_terms(batch, 0.0)
    assert set(terms) == {"invariance", "variance", "sigreg"}


def test_watches_the_embeddings(batch):
    objective = small_vicreg()
    objective.monitoring = True
    objective.loss_terms(batch, 0.0)
    assert set(objective.monitored) == {"std", "active_hinges", "effective_rank", "correlation"}


def test_default_views_are_of_the_backbones_size():
    objective = VICReg(small_vit(in_chans=3), expander=small_projector)
    assert objective.views.image_size == 32
    assert objective.views.in_chans == 3


def test_a_single_image_is_refused_in_training_and_left_out_of_held_out_losses():
    data = PhantomDataModule(
        8, 48, views=pair_views(), batch_size=1, num_workers=0, split=(0.5, 0.5, 0.0)
    )
    with pytest.raises(InputError, match="needs at least 2 in a batch over all processes, got 1"):
        quiet_trainer().fit(small_vicreg(), datamodule=data)
    data = PhantomDataModule(
        10, 48, views=pair_views(), batch_size=2, num_workers=0, split=(0.5, 0.5, 0.0)
    )
    trainer = quiet_trainer()
    trainer.fit(small_vicreg(), datamodule=data)
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


def test_a_skipped_step_leaves_no_trace_in_running_statistics():
    objective = small_vicreg(small_convnet())
    good, bad = batches(objective.views, 2)
    bad["views"][0] = torch.nan
    numbers = {"image_number": torch.arange(4)}
    trainer = quiet_trainer()
    with pytest.warns(UserWarning, match="Step 0 was skipped"):
        trainer.fit(objective, loader([bad | numbers, good | numbers]))
    assert torch.isfinite(objective.embed(good["views"][:, 0])).all()
    once = small_vicreg(small_convnet())
    once.loss_terms(good, 0.0)
    ours, theirs = (o.backbone.state_dict() for o in (objective, once))
    for name, value in theirs.items():
        if "running" in name or "tracked" in name:
            assert_close(ours[name], value)

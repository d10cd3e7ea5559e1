import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.losses import draw_directions, sigreg
from tests.objectives.siamese_training import batches, small_convnet, small_lejepa


@pytest.fixture
def batch():
    [batch] = batches(small_lejepa().views, 1)
    return batch


def test_terms_are_the_papers(batch):
    objective = small_lejepa()
    terms = objective.loss_terms(batch, 0.0)
    reference = small_lejepa()
    crops = [*batch["global_crops"].unbind(1), *batch["local_crops"].unbind(1)]
    z = reference.projector(torch.cat([reference.backbone(crop).cls for crop in crops]))
    z = z.unflatten(0, (4, -1))
    centre = (z[0] + z[1]) / 2
    assert_close(terms["invariance"], torch.stack([(v - centre).square().mean() for v in z]).mean())
    directions = draw_directions(16, 32, torch.Generator().manual_seed(0), z.device)
    assert_close(terms["sigreg"], torch.stack([sigreg(v, directions) for v in z]).mean())
    assert objective.weight("invariance") == pytest.approx(0.95)
    assert objective.weight("sigreg") == pytest.approx(0.05)


def test_works_without_local_crops_and_on_a_convnet(batch):
    objective = small_lejepa(small_convnet())
    sum(objective.loss_terms(batch, 0.0).values()).backward()
    assert all(p.grad is not None for p in objective.parameters())
    del batch["local_crops"]
    assert set(objective.loss_terms(batch, 0.0)) == {"invariance", "sigreg"}


def test_directions_change_from_step_to_step(batch):
    objective = small_lejepa()
    first = objective.loss_terms(batch, 0.0)["sigreg"]
    objective._sketch_seed = 1
    assert objective.loss_terms(batch, 0.0)["sigreg"] != first


@pytest.mark.parametrize(
    ("options", "part"),
    [({"trade_off": 1.5}, "trade_off must be in"), ({"directions": 0}, "directions must be")],
)
def test_options_out_of_range_are_refused(options, part):
    with pytest.raises(InputError, match=part):
        small_lejepa(**options)

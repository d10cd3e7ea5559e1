import copy

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from cxrssl.backbones import ConvNet, ViT
from cxrssl.heads import DINOHead, Predictor, Projector
from cxrssl.objectives import IJEPA, MLVICX, DINOv2, Joint, LeJEPA, VICReg, WorldModel
from cxrssl.objectives.footprint import measure_footprint, sample_batch
from cxrssl.objectives.memory_meter import MemoryMeter
from cxrssl.views import MaskedView, MultiCrop, PairViews, WorldViews

SIDE, BATCH = 32, 6
TOKENS = {"image_size": SIDE, "patch_size": 8, "min_keep": 1}


def vit(**options):
    small = {"img_size": SIDE, "patch_size": 8, "width": 32, "depth": 2, "heads": 2}
    return ViT("vit_tiny", **(small | options))


def head(dim):
    return DINOHead(dim, prototypes=64, hidden=16, bottleneck=8)


def projector(dim):
    return Projector(dim, widths=(16, 16))


def predictor(dim, actions):
    return Predictor(dim, actions, width=24, depth=2, heads=2)


def crops():
    return MultiCrop(global_size=SIDE, local_size=16, n_local=2, patch_size=8)


def pairs():
    return PairViews(image_size=SIDE)


def dinov2(backbone, **options):
    return DINOv2(backbone, views=crops(), dino_head=head, **options)


def vicreg(backbone):
    return VICReg(backbone, views=pairs(), expander=projector)


OBJECTIVES = {
    "DINOv2": lambda: dinov2(vit(drop_path=0.3)),
    "DINOv2, softmax": lambda: dinov2(vit(), centering="softmax", weights={"sigreg": 0.1}),
    "VICReg": lambda: vicreg(vit()),
    "MLVICX": lambda: MLVICX(vit(), views=pairs(), global_head=projector),
    "ConvNet": lambda: vicreg(ConvNet("test_resnet", img_size=SIDE)),
    "LeJEPA": lambda: LeJEPA(vit(), views=crops(), projector=projector),
    "IJEPA": lambda: IJEPA(vit(class_token=False), views=MaskedView(**TOKENS), predictor=predictor),
    "WorldModel": lambda: WorldModel(
        vit(class_token=False), views=WorldViews(**TOKENS), predictor=predictor
    ),
    "Joint": lambda: Joint(vit(), {"dinov2": dinov2, "vicreg": vicreg}),
}


def made(name):
    torch.manual_seed(0)
    return OBJECTIVES[name]()


def really_saved(objective):
    """Return the bytes a real forward pass keeps, each storage once and no weights or views."""
    batch = sample_batch(objective.views, BATCH)
    seen = {t.untyped_storage().data_ptr() for t in [*objective.parameters(), *objective.buffers()]}
    given = list(batch.values())
    while given:
        each = given.pop()
        given += list(each.values()) if isinstance(each, dict) else []
        seen |= set() if isinstance(each, dict) else {each.untyped_storage().data_ptr()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        terms = objective.weighted_terms(batch, 0.5).values()
        loss = sum(weight * term for weight, term in terms)
    assert loss.isfinite()
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_bytes_kept_for_the_backward_pass_are_those_of_a_real_step(name):
    objective = made(name)
    state = torch.get_rng_state()
    before = copy.deepcopy(objective.state_dict())
    footprint = measure_footprint(objective, BATCH)
    assert torch.equal(torch.get_rng_state(), state)
    for key, value in objective.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(p.grad is None for p in objective.parameters())
    assert footprint.saved == pytest.approx(really_saved(objective), rel=0.1)
    assert footprint.peak >= footprint.saved
    assert footprint.flops > 0


def test_the_peak_is_that_of_all_tensors_alive():
    meter = MemoryMeter(set(), {})
    with meter:
        x = torch.zeros(1000)  # 4000 bytes
        y = x + 1  # 8000
        del x  # 4000
        z = torch.cat([y, y])  # 12000
        del y, z
        torch.zeros(2000)  # 8000
    assert meter.peak == 12000


def test_gradients_kept_from_before_raise_the_peak():
    objective = made("DINOv2")
    once = measure_footprint(objective, 1).peak
    trained = sum(p.nbytes for p in objective.parameters() if p.requires_grad)
    more = measure_footprint(objective, 1, accumulates=True).peak - once
    assert 0 < more <= trained


def test_logits_and_patches():
    objective = made("DINOv2")
    footprint = measure_footprint(objective, BATCH)
    assert footprint.patches == BATCH * (2 * 16 + 2 * 4)
    assert footprint.views > BATCH * footprint.patches  # floats
    student = BATCH * (2 + 2) * 64 * 4
    assert footprint.logits >= student
    wider = DINOv2(vit(), views=crops(), dino_head=lambda dim: DINOHead(dim, prototypes=6400))
    assert measure_footprint(wider, BATCH).logits > 50 * footprint.logits
    assert measure_footprint(made("VICReg"), BATCH).logits == 0
    assert measure_footprint(made("ConvNet"), BATCH).patches == 0


def test_operations_are_those_of_the_layers():
    objective = made("VICReg")
    flops = measure_footprint(objective, BATCH).flops
    tokens, rows, width = 17, 2 * BATCH, 32
    block = 12 * width**2 * tokens + 2 * tokens**2 * width  # multiply-adds of an image
    forward = rows * 2 * (2 * block + 64 * width * 16 + width * 16 + 16 * 16)
    assert flops == pytest.approx(3 * forward, rel=0.1)


def test_checkpointed_blocks_lower_the_peak_and_not_the_operations():
    torch.manual_seed(0)
    backbone = vit(depth=4)
    objective = vicreg(backbone)
    plain = measure_footprint(objective, 32)
    backbone.activation_checkpointing = True
    footprint = measure_footprint(objective, 32)
    assert footprint.peak < 0.7 * plain.peak
    assert footprint.flops == plain.flops
    assert backbone.activation_checkpointing


def test_checkpointed_blocks_of_a_predictor_lower_the_peak_and_not_the_operations():
    objective = made("WorldModel")
    plain = measure_footprint(objective, 32)
    objective.predictor.activation_checkpointing = True
    footprint = measure_footprint(objective, 32)
    assert footprint.peak < 0.9 * plain.peak
    assert footprint.flops == plain.flops
    assert objective.predictor.activation_checkpointing


def test_mixed_precision_takes_less():
    objective = made("VICReg")
    plain = measure_footprint(objective, 32)
    mixed = measure_footprint(objective, 32, context=lambda: torch.autocast("cpu", torch.bfloat16))
    assert mixed.saved < 0.8 * plain.saved
    assert mixed.flops == plain.flops


def test_synchronised_norms_are_those_of_one_process():
    objective = made("VICReg")
    expected = measure_footprint(objective, BATCH)
    objective.expander = torch.nn.SyncBatchNorm.convert_sync_batchnorm(objective.expander)
    assert measure_footprint(objective, BATCH) == expected
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in objective.modules())


def test_attention_is_counted_on_the_cpu_as_written():
    from torch.utils.flop_counter import FlopCounterMode

    from cxrssl.objectives.footprint import _ATTENTION

    q = torch.zeros(2, 3, 5, 8, requires_grad=True)
    k = torch.zeros(2, 3, 7, 8)
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        out = F.scaled_dot_product_attention(q, k, k)
        assert counter.get_total_flops() == 4 * 2 * 3 * 5 * 7 * 8
        out.sum().backward()
    assert counter.get_total_flops() == 14 * 2 * 3 * 5 * 7 * 8

import pytest
import torch

from cxrssl.backbones import ViT
from cxrssl.errors import InputError
from cxrssl.heads.segmentation import LinearDecoder, UNetDecoder, UPerNetDecoder, ViTDetDecoder
from tests.heads.segmentation.encoders import random_levels, vit_levels

SMALL = {
    LinearDecoder: {},
    ViTDetDecoder: {"channels": 8},
    UPerNetDecoder: {"channels": 8, "auxiliary_weight": 0.4, "auxiliary_channels": 8},
    UNetDecoder: {"width": 4},
}


def small(decoder, dims=(16,) * 4, **options):
    torch.manual_seed(0)
    return decoder(dims, 3, **(SMALL[decoder] | options))


@pytest.mark.parametrize("decoder", SMALL)
def test_decodes_an_encoder_and_every_parameter_gets_a_gradient(decoder):
    vit = ViT("vit_tiny", img_size=28, patch_size=7, width=16, depth=4, heads=2)
    model = small(decoder, vit.level_dims)
    images = torch.randn(2, 1, 28, 28)
    levels = vit.levels(images, model.level_numbers())
    logits, auxiliary = model(levels, images), model.auxiliary(levels, images)
    assert logits.shape == (2, 3, 28, 28)
    loss = logits.square().mean()
    if model.auxiliary_weight:
        assert auxiliary.shape == (2, 3, 28, 28)
        loss = loss + auxiliary.square().mean()
    else:
        assert auxiliary is None
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("decoder", SMALL)
@pytest.mark.parametrize(("grid", "size"), [((5, 7), (70, 98)), ((5, 5), (73, 81)), ((3, 2), 24)])
def test_logits_are_as_large_as_the_images_for_any_grid(decoder, grid, size):
    model = small(decoder)
    height, width = (size, size) if isinstance(size, int) else size
    images = torch.randn(2, 1, height, width)
    assert model(vit_levels(model, 16, grid), images).shape == (2, 3, height, width)


@pytest.mark.parametrize("decoder", SMALL)
def test_rounds_little_under_autocast(decoder):
    model = small(decoder).eval()
    images = torch.randn(2, 1, 28, 28)
    levels = vit_levels(model, 16, (4, 4))
    with torch.no_grad():
        exact = model(levels, images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(levels, images)
    assert (rounded.float() - exact).abs().max() < 0.05 * max(exact.std().item(), 0.1)


def test_levels_are_numbered_from_0():
    assert LinearDecoder((16,) * 12, 1).level_numbers() == (11,)
    assert LinearDecoder((16,) * 12, 1, blocks=4).level_numbers() == (8, 9, 10, 11)
    assert ViTDetDecoder((16,) * 12, 1, channels=8).level_numbers() == (11,)
    assert UNetDecoder((16,) * 2, 1, width=4).level_numbers() == (1,)


def test_wrong_sizes_and_levels_are_refused():
    with pytest.raises(InputError, match=r"positive sizes, got dims \[\], n_structures 1"):
        LinearDecoder([], 1)
    with pytest.raises(InputError, match="n_structures 0"):
        ViTDetDecoder([8], 0)
    with pytest.raises(InputError, match="levels -2 to 1 of this encoder, got"):
        LinearDecoder([8, 8], 1, blocks=3)
    model = LinearDecoder([8], 1)
    levels = random_levels([8, 8], [(2, 2)] * 2)
    with pytest.raises(InputError, match=r"reads levels \(0,\), got 2 of them"):
        model(levels, torch.zeros(2, 1, 8, 8))

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.segmentation import UPerNetDecoder
from tests.golden import load_golden, subset
from tests.heads.segmentation.encoders import as_tokens, random_levels, vit_levels


def our_key(name):
    """Return our name of a parameter of the golden head."""
    for theirs, ours in (
        ("psp_modules", "pooling.convs"),
        ("fpn_bottleneck", "fusion"),
        ("bottleneck", "pooling.fusion"),
        ("lateral_convs", "laterals"),
        ("fpn_convs", "smooth"),
    ):
        if name.startswith(theirs):
            name = name.replace(theirs, ours, 1)
            break
    name = name.replace("pooling.convs", "pool")
    parts = name.replace("conv.", "0.").replace("batch_norm.", "1.").split(".")
    if parts[0] == "pool":  # a pooling layer comes first there
        parts = ["pooling.convs", parts[1], *parts[3:]]
    return ".".join(parts)


def golden_decoder():
    golden = load_golden("seg_heads/upernet.npz")
    decoder = UPerNetDecoder(
        (6,) * 4, 3, channels=8, pyramid=False, auxiliary_weight=0.4, auxiliary_channels=6
    ).double()
    state = {our_key(name): value for name, value in subset(golden, "sd.").items()}
    for name, value in subset(golden, "aux_sd.").items():
        name = name.replace("convs.0.conv", "0.0").replace("convs.0.batch_norm", "0.1")
        state["auxiliary_head." + name.replace("classifier", "1")] = value
    decoder.load_state_dict(state)
    return decoder, [as_tokens(golden[f"feat{level}"]) for level in range(4)], golden


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden(mode):
    decoder, levels, golden = golden_decoder()
    decoder.train(mode == "train")
    found = decoder(levels, torch.zeros(2, 1, 20, 20))
    assert_close(found, golden[f"out_{mode}"], atol=1e-9, rtol=1e-9)
    found = decoder.auxiliary(levels, torch.zeros(2, 1, 5, 5))
    assert_close(found, golden[f"aux_{mode}"], atol=1e-9, rtol=1e-9)
    larger = F.interpolate(found, (40, 40), mode="bilinear", align_corners=False)
    assert_close(decoder.auxiliary(levels, torch.zeros(2, 1, 40, 40)), larger)


@pytest.mark.parametrize(("channels", "millions"), [(512, 32.3), (768, 67.8)])
def test_published_sizes(channels, millions):
    with torch.device("meta"):
        decoder = UPerNetDecoder((768,) * 12, 2, channels=channels)
    head = [p for name, p in decoder.named_parameters() if not name.startswith("rescale.")]
    assert sum(p.numel() for p in head) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(
    ("dims", "levels"),
    [
        ((8,) * 12, (2, 5, 8, 11)),
        ((8,) * 24, (5, 11, 17, 23)),
        ((8,) * 4, (0, 1, 2, 3)),
        ((8,) * 2, (0, 0, 1, 1)),
        ((8,), (0, 0, 0, 0)),
        ((4, 8, 16, 32), (0, 1, 2, 3)),
        ((4, 4, 8, 16, 32), (1, 2, 3, 4)),  # the stem of a ResNet is left out
    ],
)
def test_default_levels(dims, levels):
    decoder = UPerNetDecoder(dims, 1, channels=4)
    assert decoder.level_numbers() == levels
    assert bool(decoder.rescale.state_dict()) == (len(set(dims)) == 1)


def test_levels_of_a_convnet_are_taken_as_they_are():
    dims, sides = (4, 8, 16, 32), [(16, 12), (8, 6), (4, 3), (2, 2)]
    decoder = UPerNetDecoder(dims, 3, channels=4)
    levels = random_levels(dims, sides)
    assert decoder(levels, torch.zeros(2, 1, 64, 48)).shape == (2, 3, 64, 48)


def test_levels_may_be_chosen():
    assert UPerNetDecoder((8,) * 12, 1, levels=(3, 5, 7, -1)).level_numbers() == (3, 5, 7, 11)
    with pytest.raises(InputError, match=r"reads four levels, got \[0, 1\]"):
        UPerNetDecoder((8,) * 12, 1, levels=(0, 1))
    with pytest.raises(InputError, match=r"reads four levels, got \[0, 1, 2\]"):
        UPerNetDecoder((4, 8, 16), 1)


def test_one_image_trains_only_without_global_pooling():
    decoder = UPerNetDecoder((8,) * 4, 1, channels=4)
    levels = vit_levels(decoder, 8, (4, 4), batch=1)
    images = torch.zeros(1, 1, 16, 16)
    with pytest.raises(InputError, match="batch of 1 image with pool scale 1"):
        decoder(levels, images)
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # what torch says
        nn.BatchNorm2d(8)(levels[0].map.mean((2, 3), keepdim=True))
    assert decoder.eval()(levels, images).shape == (1, 1, 16, 16)
    without = UPerNetDecoder((8,) * 4, 1, channels=4, pool_scales=(2, 3))
    assert without(levels, images).shape == (1, 1, 16, 16)


def test_no_auxiliary_head_unless_it_counts():
    decoder = UPerNetDecoder((8,) * 4, 1, channels=4)
    assert decoder.auxiliary(vit_levels(decoder, 8, (2, 2)), torch.zeros(2, 1, 8, 8)) is None
    assert decoder.auxiliary_weight == 0
    assert not any("auxiliary" in name for name, _ in decoder.named_parameters())


@pytest.mark.parametrize(
    "options",
    [{"channels": 0}, {"pool_scales": (0,)}, {"auxiliary_channels": 0}, {"auxiliary_weight": -1}],
)
def test_impossible_sizes_are_refused(options):
    with pytest.raises(InputError, match="positive sizes and no negative weight, got channels"):
        UPerNetDecoder((8,) * 4, 1, **options)

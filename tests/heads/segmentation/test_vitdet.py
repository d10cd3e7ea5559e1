import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.segmentation import ViTDetDecoder
from tests.heads.segmentation.encoders import random_levels


def channel_norm(x):
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()


def slow(decoder, level, size):
    """The pyramid written out: norms start with scale 1 and shift 0."""
    weights = {name: p for name, p in decoder.named_parameters() if "classifier" not in name}

    def double(x, name):
        return F.conv_transpose2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2)

    def project(x, number, first):
        x = channel_norm(F.conv2d(x, weights[f"scales.{number}.{first}.weight"]))
        return channel_norm(F.conv2d(x, weights[f"scales.{number}.{first + 2}.weight"], padding=1))

    finest = double(F.gelu(channel_norm(double(level, "scales.0.0.0"))), "scales.0.0.3")
    scales = [finest, double(level, "scales.1.0"), level, F.max_pool2d(level, 2)]
    total = 0
    for number, scale in enumerate(scales):
        out = project(scale, number, 1)
        total = total + F.interpolate(out, finest.shape[-2:], mode="bilinear", align_corners=False)
    return F.interpolate(decoder.classifier(total), size, mode="bilinear", align_corners=False)


def test_equals_the_pyramid_written_out():
    torch.manual_seed(0)
    decoder = ViTDetDecoder((8, 8), 2, channels=6).double()
    (last,) = random_levels([8], [(5, 6)], dtype=torch.float64)
    found = decoder([last], torch.zeros(2, 1, 70, 84))
    assert_close(found, slow(decoder, last.map, (70, 84)), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize(("channels", "millions"), [(256, 5.6), (768, 25.5)])
def test_published_sizes(channels, millions):
    with torch.device("meta"):
        decoder = ViTDetDecoder((768,) * 12, 1, channels=channels)
    assert sum(p.numel() for p in decoder.scales.parameters()) / 1e6 == pytest.approx(
        millions, abs=0.05
    )


@pytest.mark.parametrize(("dims", "channels"), [([6], 8), ([8], 0)])
def test_impossible_widths_are_refused(dims, channels):
    with pytest.raises(InputError, match=f"got channels {channels} and width {dims[0]}"):
        ViTDetDecoder(dims, 1, channels=channels)

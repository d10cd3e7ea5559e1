import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.segmentation import LinearDecoder
from tests.heads.segmentation.encoders import random_levels


def test_is_a_linear_layer_on_normalised_tokens():
    torch.manual_seed(0)
    decoder = LinearDecoder((6,) * 3, 2).double()
    (last,) = random_levels([6], [(4, 5)], dtype=torch.float64)
    tokens = last.patches.flatten(0, 1)
    normed = (tokens - tokens.mean(0)) / (tokens.var(0, correction=0) + 1e-5).sqrt()
    weight = decoder.classifier.weight[:, :, 0, 0]
    logits = (normed @ weight.T).view(2, 4, 5, 2).permute(0, 3, 1, 2)
    expected = F.interpolate(logits, (28, 35), mode="bilinear", align_corners=False)
    assert_close(decoder([last], torch.zeros(2, 1, 28, 35)), expected, atol=1e-12, rtol=1e-9)


def test_levels_are_joined_in_order_at_the_size_of_the_last():
    decoder = LinearDecoder((4, 6), 1, blocks=2).double().eval()
    first, last = random_levels((4, 6), [(8, 8), (4, 4)], dtype=torch.float64)
    joined = torch.cat([F.avg_pool2d(first.map, 2), last.map], 1)  # half a size, bilinearly
    expected = decoder.classifier(decoder.norm(joined))
    assert_close(decoder([first, last], torch.zeros(2, 1, 4, 4)), expected)


def test_starts_as_published():
    decoder = LinearDecoder((768,) * 12, 50, blocks=4)
    assert decoder.norm.num_features == 3072
    assert decoder.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert decoder.classifier.bias.abs().max() == 0


def test_needs_a_block():
    with pytest.raises(InputError, match="blocks must be at least 1, got 0"):
        LinearDecoder([8], 1, blocks=0)

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from cxrssl.backbones import resample_positions, sincos_positions
from tests.golden import load_golden, subset


def test_golden_resampled_tables():
    golden = load_golden("dinov2/pos_interp_37.npz")
    for kind, mode in (("noreg", "offset"), ("reg", "size")):
        for key, expected in subset(golden, f"{kind}/").items():
            height, width = (int(side) // 14 for side in key.split("x"))
            table = resample_positions(golden["pos_embed"][:, 1:], (37, 37), (height, width), mode)
            assert_close(table, expected[:, 1:], atol=1e-5, rtol=1e-5)


def test_golden_plain_resampling():
    table = load_golden("chexworld/model_micro.npz")["sd/target_encoder.pos_embed"]
    expected = load_golden("chexworld/finetune.npz")["p8/pos_embed"]
    assert_close(resample_positions(table, (4, 4), (8, 8), "plain"), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("new", [(3, 5), (7, 4), (8, 8)])
def test_plain_samples_at_the_centres_of_the_new_patches(new):
    table = torch.randn(1, 16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    image = table.unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    # In a reflected frame of [-1, 1], the n centres of an axis are at (2 i + 1) / n - 1.
    rows, columns = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in new)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], dim=-1)[None]
    expected = F.grid_sample(image, places, "bicubic", "border", align_corners=False)
    resampled = resample_positions(table, (4, 4), new, "plain")
    # Tables are resampled in float32; values of about 2 leave 1e-6, another mode more than 1e-2.
    expected = expected.flatten(2).transpose(1, 2)
    assert_close(resampled, expected, atol=5e-6, rtol=0)


def test_modes_differ_and_keep_a_table_of_the_same_grid():
    table = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(0))
    modes = ("offset", "size", "plain")
    small = {mode: resample_positions(table, (4, 4), (3, 3), mode) for mode in modes}
    assert not torch.allclose(small["plain"], small["size"], atol=1e-2)
    assert not torch.allclose(small["plain"], small["offset"], atol=1e-2)
    for mode in modes:
        assert resample_positions(table, (4, 4), (4, 4), mode) is table


@pytest.mark.parametrize(("dim", "side"), [(768, 14), (384, 14), (48, 4), (32, 4)])
def test_golden_sincos(dim, side):
    expected = load_golden("chexworld/pos_embed.npz")[f"sincos_D{dim}_G{side}"]
    # The reference works in float32, so its large angles are off in the seventh digit.
    assert_close(sincos_positions(dim, (side, side))[0], expected, atol=1e-6, rtol=0)


def test_golden_sincos_of_ijepa():
    expected = load_golden("chexworld/pos_embed.npz")["ijepa_sincos_D1280_G16_first40rows"]
    assert_close(sincos_positions(1280, (16, 16))[0, :40], expected, atol=1e-7, rtol=0)


def test_sincos_needs_four_parts():
    with pytest.raises(ValueError, match="a width that is a multiple of 4, got 30"):
        sincos_positions(30, (4, 4))

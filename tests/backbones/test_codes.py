import pytest
import torch
from torch.testing import assert_close

from cxrssl.backbones import place_in_other_crop, sincos_codes, sincos_positions
from cxrssl.errors import InputError
from tests.golden import load_golden


def codes_of_grid(side, dim, offset=None, order="column_first"):
    n = 1 if offset is None else len(offset)
    index = torch.arange(side * side).expand(n, -1)
    return sincos_codes(*place_in_other_crop(index, (side, side), offset), dim, order)


def test_codes_of_whole_places_are_the_fixed_table():
    assert_close(codes_of_grid(7, 48), sincos_positions(48, (7, 7)), atol=1e-6, rtol=0)


def test_without_offset_the_other_order_exchanges_the_halves():
    first, second = codes_of_grid(4, 32).chunk(2, -1)
    swapped = codes_of_grid(4, 32, torch.zeros(1, 4), "row_first")
    assert torch.equal(swapped, torch.cat([second, first], -1))


@pytest.mark.parametrize(("dim", "side"), [(32, 4), (48, 4), (384, 14)])
def test_golden_codes_of_places_in_the_other_crop(dim, side):
    golden = load_golden("chexworld/pos_embed.npz")
    expected = golden[f"easy_D{dim}_G{side}"]
    offset = golden["rel_pos_21"][: len(expected)].float()
    codes = codes_of_grid(side, dim, offset, "row_first")
    assert_close(codes, expected.float(), atol=5e-5, rtol=0)


def test_golden_codes_of_the_very_crop():
    expected = load_golden("chexworld/pos_embed.npz")["easy_zero_D32_G4"]
    assert_close(codes_of_grid(4, 32, None, "row_first")[0], expected.float(), atol=1e-6, rtol=0)


def test_place_through_pixels():
    """The centre of a patch keeps its pixel, mirrored or not."""
    side, height, width, image = 4, 80, 100, 300
    (top1, left1), (top2, left2) = (10, 30), (35, 120)
    for mirrored in (0, 1):
        offset = torch.tensor(
            [
                [
                    (top2 - top1) / height,
                    (left2 - left1) / width,
                    mirrored,
                    (image - left1 - left2) / width,
                ]
            ]
        )
        index = torch.arange(side * side)[None]
        rows, columns = place_in_other_crop(index, (side, side), offset)
        u, v = index // side, index % side
        y = top2 + (u + 0.5) * height / side
        x = left2 + (v + 0.5) * width / side
        if mirrored:
            x = image - x  # the second crop's frame is the mirrored image
        assert_close(rows, (y - top1) / height * side - 0.5)
        assert_close(columns, (x - left1) / width * side - 0.5)


def test_width_must_be_a_multiple_of_four():
    with pytest.raises(InputError, match="multiple of 4, got 6"):
        sincos_codes(torch.zeros(1), torch.zeros(1), 6)

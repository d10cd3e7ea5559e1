import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.heads.segmentation import UNetDecoder
from tests.backbones.official import micro_vit
from tests.golden import load_golden, subset
from tests.heads.segmentation.encoders import random_levels


def our_key(name):
    """Return our name of a parameter of the golden decoder."""
    if name.startswith("fpns."):
        return name.replace("fpns", "scales")
    name = name.removeprefix("head.").replace("in_encoder", "stem").replace("out.", "classifier.")
    if name.startswith("decoders."):  # the last stage is number 0 there
        _, number, _, rest = name.split(".", 3)
        name = f"stages.{3 - int(number)}.{rest}"
    return name


@pytest.mark.parametrize(("case", "patch"), [("p8", 8), ("p16", 16)])
def test_golden(case, patch):
    golden = load_golden("chexworld/seg_adapter.npz")
    state = subset(golden, f"{case}/sd/")
    vit = micro_vit(patch_size=patch).eval()
    vit.vit.load_state_dict(subset(state, "feature_model."))
    decoder = UNetDecoder(vit.level_dims, 1, in_chans=3, width=4, form=f"patch{patch}").eval()
    decoder.load_state_dict(
        {our_key(name): v for name, v in state.items() if not name.startswith("feature_model.")}
    )
    with torch.no_grad():
        found = decoder(vit.levels(golden["x"], decoder.level_numbers()), golden["x"])
    assert_close(found, golden[f"{case}/out"], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("form", "grid", "size"), [("patch16", 37, 518), ("patch8", 9, 72)])
def test_scales_and_output_where_patches_do_not_fit(form, grid, size):
    decoder = UNetDecoder((4,), 1, width=1, form=form).eval()
    (last,) = random_levels([4], [(grid, grid)], batch=1)
    sides = [scale(last.map).shape[-1] for scale in decoder.scales]
    wanted = [8, 4, 2, 1] if form == "patch16" else [4, 2, 1, 0.5]
    assert sides == [int(grid * factor) for factor in wanted]
    assert decoder([last], torch.zeros(1, 1, size, size)).shape == (1, 1, size, size)


def test_sees_details_of_the_image_that_the_encoder_does_not():
    decoder = UNetDecoder((8,), 1, width=2).eval()
    (last,) = random_levels([8], [(2, 2)], batch=1)
    image = torch.zeros(1, 1, 32, 32)
    changed = image.clone()
    changed[..., 3, 4] = 1
    difference = (decoder([last], changed) - decoder([last], image)).abs()[0, 0]
    assert difference[3, 4] > 0
    assert difference[12:].max() == 0


def test_impossible_arguments_are_refused():
    with pytest.raises(InputError, match="form must be 'patch8' or 'patch16', got 'patch14'"):
        UNetDecoder((8,), 1, form="patch14")
    with pytest.raises(InputError, match="multiple of 4, got 32 and 6"):
        UNetDecoder((6,), 1)

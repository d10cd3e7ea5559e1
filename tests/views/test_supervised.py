import math
import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.views import EvalView, Photometry, resize
from cxrssl.views.crops import draw_box
from cxrssl.views.supervised import EXPOSURE, SupervisedView
from cxrssl.views.warp import WarpLaw

STILL = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "flip": 0.0,
    "degrees": 0.0,
    "translate": 0.0,
    "zoom": (1.0, 1.0),
}
PLAIN = {**STILL, "photometry": None}
# Grey values stay as they are.
GREY = {"mean": 0.0, "std": 1 / 255}


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def smooth(height, width, seed=0):
    """Return an image without fine structure, so that ways to interpolate agree."""
    coarse = noise(6, 6, seed)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def masks_of(image):
    """Return two masks of an image, inside where it is bright, with unknown pixels."""
    masks = np.stack([image > 120, image > 180]).astype(np.uint8)
    masks[1, :7] = 255
    return masks


def law(size=64, **options):
    return WarpLaw(**{"size": size, **STILL, "elastic": 0.0, **options})


def view_of(image, seed=0, **options):
    view = SupervisedView(**{"image_size": 64, **options})
    return view(image, np.random.default_rng(seed))["image"]


def test_shapes_and_types():
    view = SupervisedView(image_size=32, in_chans=3)
    image = smooth(50, 40)
    rng = np.random.default_rng(0)
    samples = [view.with_masks(image, masks_of(image), rng) for _ in range(4)]
    batch = view.collate(samples, rng)
    assert set(view(image, rng)) == {"image"}
    assert set(batch) == {"image", "masks"}
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["masks"].shape == (4, 2, 32, 32)
    assert batch["masks"].dtype == torch.uint8


@pytest.mark.parametrize("side", [20, 64, 90, 191])
@pytest.mark.parametrize("options", [{}, {"rescale": True}, {"resampling": "pillow"}])
def test_without_randomness_it_is_the_eval_view(side, options):
    image = noise(side, side) // 2 + 40
    view = SupervisedView(image_size=64, **PLAIN, **options)
    sample = view.with_masks(image, masks_of(image), np.random.default_rng(0))
    expected = view.eval_view().with_masks(image, masks_of(image))
    assert torch.equal(sample["image"], expected["image"])
    assert torch.equal(sample["masks"], expected["masks"])


def test_eval_view_has_the_same_options():
    options = {"image_size": 32, "resize": 40, "rescale": True, "resampling": "pillow"}
    options |= {"in_chans": 3, "mean": 0.2, "std": 0.7}
    view, expected = SupervisedView(**options).eval_view(), EvalView(**options)
    assert type(view) is EvalView
    image = noise(60, 50)
    assert torch.equal(view(image)["image"], expected(image)["image"])


@pytest.mark.parametrize("options", [{}, {"elastic": 0.03}, {"photometry": None, "rescale": True}])
def test_masks_do_not_change_the_image(options):
    image = smooth(90, 70)
    view = SupervisedView(image_size=48, **options)
    for seed in range(5):
        alone = view(image, np.random.default_rng(seed))["image"]
        beside = view.with_masks(image, masks_of(image), np.random.default_rng(seed))
        assert torch.equal(alone, beside["image"])


@pytest.mark.parametrize("elastic", [0.0, 0.02])
@pytest.mark.parametrize(("shape", "outline"), [((150, 120), 0.02), ((40, 45), 0.04)])
def test_masks_lie_where_the_image_does(shape, outline, elastic):
    image = smooth(*shape)
    view = SupervisedView(image_size=64, elastic=elastic, photometry=None, **GREY)
    for seed in range(10):
        mask = (image > 128).astype(np.uint8)[None]
        sample = view.with_masks(image, mask, np.random.default_rng(seed))
        expected = sample["image"] > 128
        # On the outline they differ; a shift by half a pixel would be more than that.
        wrong = (sample["masks"].bool() != expected).float().mean()
        assert wrong < outline


def test_values_of_masks_stay_and_outside_is_zero():
    image = smooth(80, 60)
    masks = np.random.default_rng(0).choice(np.array([0, 1, 255], np.uint8), (3, 80, 60))
    view = SupervisedView(image_size=64, degrees=45.0, translate=0.3, elastic=0.02)
    for seed in range(10):
        sample = view.with_masks(image, masks, np.random.default_rng(seed))
        assert set(sample["masks"].unique().tolist()) == {0, 1, 255}
    ones = np.ones_like(masks)
    far = SupervisedView(image_size=64, **{**PLAIN, "translate": 0.5}, **GREY)
    for seed in range(5):
        sample = far.with_masks(np.full_like(image, 200), ones, np.random.default_rng(seed))
        inside = sample["masks"][0].bool()
        assert not inside.all()
        # Half of a pixel on the border, or a quarter in the corner, may lie on the other side.
        assert (sample["image"][0][~inside] <= 101).all()
        assert (sample["image"][0][inside] >= 48).all()
        assert (sample["image"][0] == 0).float().mean() > 0.9 * (~inside).float().mean()


@pytest.mark.parametrize("seed", range(6))
def test_pixels_come_from_where_the_steps_one_by_one_put_them(seed):
    options = {
        "scale": (0.3, 0.8),
        "ratio": (0.5, 2.0),
        "flip": 0.5,
        "degrees": 40.0,
        "translate": 0.2,
        "zoom": (0.7, 1.4),
    }
    size, height, width = 16, 90, 60
    warp = law(size, **options).draw(height, width, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    box = draw_box(height, width, options["scale"], options["ratio"], rng)
    mirror = rng.random() < options["flip"]
    angle = math.radians(rng.uniform(-40, 40))
    down, right = size * rng.uniform(-0.2, 0.2, 2)
    zoom = rng.uniform(0.7, 1.4)
    # Forwards, from the image to the view, with coordinates in continuous pixels.
    for i, j in [(0, 0), (3, 12), (15, 15)]:
        y, x = warp.rows[i, j] + 0.5, warp.columns[i, j] + 0.5
        y = (y - box.top) * size / box.height - size / 2
        x = (x - box.left) * size / box.width - size / 2
        x = -x if mirror else x
        y, x = y * math.cos(angle) - x * math.sin(angle), y * math.sin(angle) + x * math.cos(angle)
        y, x = y * zoom + down + size / 2, x * zoom + right + size / 2
        assert (y - 0.5, x - 0.5) == pytest.approx((i, j))


def test_flip():
    image = noise(64, 64)
    assert torch.equal(view_of(image, **{**PLAIN, "flip": 1.0}), view_of(image, **PLAIN).flip(-1))
    flips = [
        torch.equal(view_of(image, seed, **{**PLAIN, "flip": 0.3}), view_of(image, **PLAIN))
        for seed in range(200)
    ]
    assert 0.6 < np.mean(flips) < 0.8


def test_a_quarter_turn():
    image = noise(64, 64)
    turned = law(degrees=90.0).draw(64, 64, _Fixed(90.0))
    assert np.array_equal(turned.image(image), np.rot90(image))
    assert np.array_equal(turned.masks(image[None])[0], np.rot90(image))


class _Fixed:
    """Draws the upper end of what it is asked for, and flips nothing."""

    def __init__(self, angle):
        self._angle = angle

    def random(self):
        return 1.0

    def integers(self, high, endpoint):
        return 0

    def uniform(self, low, high, size=None):
        return high if size is None else np.full(size, high)


def test_shift_and_zoom_by_hand():
    image = noise(64, 64)
    shifted = law(translate=0.25).draw(64, 64, _Fixed(0)).image(image, fill=7)
    assert (shifted[:16] == 7).all()
    assert (shifted[:, :16] == 7).all()
    assert np.array_equal(shifted[16:, 16:], image[:48, :48])
    near = law(zoom=(1.0, 2.0)).draw(64, 64, _Fixed(0)).image(image)
    # The part in view is enlarged as the whole image would be.
    assert np.array_equal(near, resize(image, 128, 128)[32:96, 32:96])


@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_shrinking_does_not_alias(degrees):
    # Stripes of one pixel are finer than the view can show: it is grey, not patterned.
    image = np.zeros((600, 600), np.uint8)
    image[::2] = 255
    view = view_of(image, **{**PLAIN, "degrees": degrees, "scale": (0.8, 1.0)}, **GREY)
    inner = view[0, 16:48, 16:48]
    assert_close(inner.mean(), torch.tensor(127.5), atol=2.0, rtol=0.0)
    assert inner.std() < 8


@pytest.mark.parametrize("scale", [(0.001, 0.002), (0.05, 0.1)])
def test_only_what_is_in_view_is_resized(scale, monkeypatch):
    sizes = []

    def spy(image, height, width, resampling):
        sizes.append((image.size, height * width))
        return resize(image, height, width, resampling)

    monkeypatch.setattr("cxrssl.views.warp.resize", spy)
    view_of(noise(700, 600), **{**PLAIN, "scale": scale, "degrees": 30.0})
    ((before, after),) = sizes
    assert before < 0.35 * 700 * 600
    assert after < 4 * 64**2


def test_the_cut_is_not_seen():
    image = smooth(400, 300)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        warp = law(scale=(0.1, 0.4), degrees=20.0, ratio=(0.7, 1.4)).draw(400, 300, rng)
        expected = cv2.remap(
            image,
            warp.columns.astype(np.float32),
            warp.rows.astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
        )
        # The outermost pixel of the view inside the image is partly black.
        inside = (np.abs(warp.rows - 199.5) < 200 - warp.step[0]) & (
            np.abs(warp.columns - 149.5) < 150 - warp.step[1]
        )
        difference = np.abs(warp.image(image).astype(int) - expected)[inside]
        assert difference.max() <= 3


def test_photometry_is_that_of_the_warped_view():
    image = smooth(100, 80)
    view = SupervisedView(image_size=32, mean=0.4, std=0.3)
    rng = np.random.default_rng(3)
    warped = view.law.draw(100, 80, rng).image(image)
    expected = view.to_tensor(EXPOSURE(warped, rng))
    assert torch.equal(view(image, np.random.default_rng(3))["image"], expected)


def test_grey_values_are_stretched_before_the_photometry():
    image = smooth(64, 64) // 4 + 50
    darker = Photometry(brightness=(0.5, 0.5))
    view = view_of(image, **{**PLAIN, "photometry": darker}, rescale=True, **GREY)
    assert (view.min(), view.max()) == (0, 128)


def test_beside_the_image_it_stays_black_when_stretched():
    image = smooth(64, 64) // 4 + 50
    view = SupervisedView(
        image_size=64, **{**PLAIN, "translate": 0.5}, rescale=True, mean=0.0, std=1.0
    )
    for seed in range(5):
        sample = view.with_masks(image, np.ones((1, 64, 64), np.uint8), np.random.default_rng(seed))
        outside = cv2.dilate(sample["masks"][0].numpy(), np.ones((3, 3))) == 0
        assert (sample["image"][0][outside] == 0).all()
        assert sample["image"].max() == 1
        seen = sample["image"][sample["masks"].bool()]
        assert seen.std() > 0.1


def test_a_constant_image_is_black_when_stretched():
    view = view_of(np.full((40, 50), 9, np.uint8), rescale=True, photometry=None, mean=0.5, std=0.5)
    assert view.unique().tolist() == [-1.0]


def test_elastic_displacements_have_the_strength_asked_for():
    rng = np.random.default_rng(0)
    centres = np.arange(64.0)
    moved = []
    for _ in range(150):
        warp = law(elastic=0.05).draw(64, 64, rng)
        moved.append((warp.rows - centres[:, None], warp.columns - centres))
    share = np.array(moved) / 64
    assert share.std() == pytest.approx(0.05, rel=0.05)
    assert share[..., 0].std() == pytest.approx(0.05, rel=0.1)  # as much at the border
    down, right = share[:, 0], share[:, 1]
    assert abs((down * right).mean()) < 0.1 * 0.05**2
    # Smooth: neighbouring pixels move together.
    assert np.diff(down, axis=-1).std() < 0.15 * down.std()


def test_draws_fill_their_ranges():
    rng = np.random.default_rng(0)
    options = {"degrees": 15.0, "translate": 0.05, "zoom": (0.9, 1.1)}
    angles, zooms, shifts = [], [], []
    for _ in range(500):
        warp = law(**options).draw(64, 64, rng)
        along = warp.columns[0, 1] - warp.columns[0, 0], warp.rows[0, 1] - warp.rows[0, 0]
        angles.append(math.degrees(math.atan2(along[1], along[0])))
        zooms.append(1 / math.hypot(*along))
        shifts.append(np.abs(warp.rows.mean() - 31.5) / 64)
    assert -15 <= min(angles) < -14
    assert 14 < max(angles) <= 15
    assert 0.9 <= min(zooms) < 0.905
    assert 1.095 < max(zooms) <= 1.1
    assert 0.04 < max(shifts) < 0.05 * math.sqrt(2) / 0.9


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (333, 7), (31, 32)])
@pytest.mark.parametrize("elastic", [0.0, 0.1])
def test_any_shape_and_the_wildest_draws(shape, elastic):
    view = SupervisedView(
        image_size=16, scale=(0.01, 1.0), degrees=180.0, translate=0.5, elastic=elastic
    )
    image = np.full(shape, 8, dtype=np.uint8)
    masks = np.ones((2, *shape), np.uint8)
    for seed in range(20):
        sample = view.with_masks(image, masks, np.random.default_rng(seed))
        assert sample["image"].shape == (1, 16, 16)
        assert sample["masks"].shape == (2, 16, 16)


def test_is_a_function_of_the_generator():
    image = smooth(50, 60)
    view = SupervisedView(image_size=32, elastic=0.01)
    first, second = view_of(image, 1, image_size=32), view_of(image, 2, image_size=32)
    assert torch.equal(first, view_of(image, 1, image_size=32))
    assert not torch.equal(first, second)
    again = pickle.loads(pickle.dumps(view))
    assert torch.equal(
        view(image, np.random.default_rng(4))["image"],
        again(image, np.random.default_rng(4))["image"],
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"ratio": (2.0, 1.0)}, "ratio must be"),
        ({"flip": 1.5}, r"flip must be in \[0, 1\], got 1.5"),
        ({"degrees": -1.0}, r"degrees must be in \[0, 180\], got -1.0"),
        ({"translate": 0.6}, r"translate must be in \[0, 0.5\], got 0.6"),
        ({"zoom": (0.0, 1.0)}, "zoom must be .* 0 < low"),
        ({"elastic": float("nan")}, r"elastic must be in \[0, 0.1\], got nan"),
        ({"resize": 10}, "resize must be at least image_size"),
        ({"resampling": "cubic"}, "resampling must be"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        SupervisedView(**options)


def test_images_and_masks_are_checked():
    view = SupervisedView()
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="one-channel images"):
        view(np.zeros((4, 4, 3), np.uint8), rng)
    with pytest.raises(InputError, match=r"must be \(K, 4, 5\) of uint8"):
        view.with_masks(np.zeros((4, 5), np.uint8), np.zeros((1, 5, 4), np.uint8), rng)

import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cxrssl.errors import InputError
from cxrssl.views import EvalView, MultiCrop, PairViews, Photometry, random_resized_crop

PLAIN = (Photometry(), Photometry())
TURN = {"flip": 1.0, "photometry": PLAIN, "scale": (1.0, 1.0), "crop_mode": "side"}


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(0, 256, (60, 50), dtype=np.uint8)


def views_of(image, seed=0, **options):
    views = PairViews(**{"image_size": 32, **options})
    return views(image, np.random.default_rng(seed))["views"]


def test_shapes_and_types(image):
    views = PairViews(image_size=32)
    rng = np.random.default_rng(0)
    samples = [views(image, rng) for _ in range(3)]
    batch = views.collate(samples, rng)
    assert [set(sample) for sample in samples] == [{"views"}] * 3
    assert set(batch) == {"views"}
    assert samples[0]["views"].shape == (2, 1, 32, 32)
    assert batch["views"].shape == (3, 2, 1, 32, 32)
    assert batch["views"].dtype == torch.float32
    assert torch.equal(batch["views"][1], samples[1]["views"])


def test_defaults():
    views = PairViews()
    assert (views.image_size, views.in_chans) == (224, 1)
    assert (views.scale, views.ratio) == ((0.08, 1.0), (3 / 4, 4 / 3))


@pytest.mark.parametrize("resampling", ["area", "pillow"])
@pytest.mark.parametrize("mode", ["area", "side"])
def test_equals_the_steps_one_by_one_and_view_by_view(image, mode, resampling):
    cut = {"scale": (0.1, 0.9), "ratio": (0.5, 2.0)}
    views = PairViews(
        image_size=32,
        **cut,
        crop_mode=mode,
        resampling=resampling,
        preset="vicreg",
        mean=0.4,
        std=0.3,
    )
    for seed in range(5):
        sample = views(image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        for view, photometry in zip(sample["views"], views.photometry, strict=True):
            crop, _ = random_resized_crop(image, 32, *cut.values(), rng, mode, resampling)
            if rng.random() < 0.5:
                crop = crop[:, ::-1].copy()
            grey = torch.from_numpy(photometry(crop, rng)[None]).double() / 255
            assert_close(view, ((grey - 0.4) / 0.3).float())


def test_views_are_global_crops(image):
    options = {"scale": (0.2, 0.7), "flip": 0.5}
    crops = MultiCrop(
        global_size=32, patch_size=8, n_local=0, global_scale=(0.2, 0.7), flip=options["flip"]
    )
    expected = crops(image, np.random.default_rng(3))["global_crops"]
    assert torch.equal(views_of(image, 3, **options), expected)


def test_the_default_preset_is_that_of_multicrop():
    pair, crops = PairViews(), MultiCrop()
    assert pair.flip == crops.flip == 0.0
    assert set(pair.photometry) == set(crops.photometry)


def test_the_published_preset():
    views = PairViews(preset="vicreg")
    assert views.flip == 0.5
    jitter = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "jitter_p": 0.8}
    blur = {"blur_sigma": (0.1, 2.0), "blur_kernel": 23}
    assert views.photometry == (
        Photometry(**jitter, **blur, blur_p=1.0, solarise_p=0.0),
        Photometry(**jitter, **blur, blur_p=0.1, solarise_p=0.2),
    )


def test_what_is_given_replaces_the_preset():
    assert PairViews(preset="vicreg", flip=0.0).flip == 0.0
    views = PairViews(preset="vicreg", photometry=list(PLAIN))
    assert (views.flip, views.photometry) == (0.5, PLAIN)


def test_flip_mirrors(image):
    square = np.ascontiguousarray(image[:50])
    flipped, plain = views_of(square, **TURN), views_of(square, **{**TURN, "flip": 0.0})
    assert torch.equal(plain.flip(-1), flipped)
    assert not torch.equal(plain, flipped)


def test_each_view_is_flipped_on_its_own(image):
    square = np.ascontiguousarray(image[:50])
    plain = views_of(square, **{**TURN, "flip": 0.0})
    seen = set()
    for seed in range(30):
        views = views_of(square, seed, **{**TURN, "flip": 0.5})
        seen.add(tuple(torch.equal(*pair) for pair in zip(views, plain, strict=True)))
    assert len(seen) == 4


def test_same_generator_same_views(image):
    first, again, other = (views_of(image, seed, preset="vicreg") for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_channels_repeat(image):
    one, three = views_of(image), views_of(image, in_chans=3)
    assert torch.equal(three, one.expand(-1, 3, -1, -1))


def test_the_image_is_left_alone(image):
    before = image.copy()
    image.flags.writeable = False
    for resampling in ("area", "pillow"):
        views_of(image, preset="vicreg", resampling=resampling)
    assert np.array_equal(image, before)


def test_images_smaller_than_a_view():
    tiny = np.full((3, 5), 9, dtype=np.uint8)
    assert views_of(tiny, preset="vicreg").isfinite().all()


def test_survives_a_worker(image):
    views = PairViews(image_size=32, preset="vicreg")
    restored = pickle.loads(pickle.dumps(views))
    samples = [each(image, np.random.default_rng(0))["views"] for each in (views, restored)]
    assert torch.equal(*samples)


def test_eval_view_has_size_and_normalisation():
    view = PairViews(image_size=64, in_chans=3, mean=0.1, std=0.2).eval_view()
    assert isinstance(view, EvalView)
    assert (view.image_size, view.in_chans, view.mean, view.std) == (64, 3, 0.1, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size and in_chans must be positive, got 0"),
        ({"preset": "dinov2"}, "preset must be one of radiograph, vicreg, got 'dinov2'"),
        ({"photometry": [Photometry()] * 3}, r"two entries \(view 1, view 2\), got 3"),
        ({"photometry": []}, "two entries .* got 0"),
        ({"flip": -0.1}, "flip must be a probability, got -0.1"),
        ({"flip": float("nan")}, "flip must be a probability, got nan"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"ratio": (2.0, 1.0)}, r"ratio must be .* got \(2.0, 1.0\)"),
        ({"crop_mode": "edge"}, "crop mode must be 'area' or 'side', got 'edge'"),
        ({"resampling": "nearest"}, "resampling must be 'area' or 'pillow', got 'nearest'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        PairViews(**options)


def test_images_are_checked():
    with pytest.raises(InputError, match="one-channel images"):
        views_of(np.zeros((8, 8, 3), dtype=np.uint8))

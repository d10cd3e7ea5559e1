import pickle

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser

from cxrssl.errors import InputError
from cxrssl.views import EvalView, JointViews, MaskedView, MultiCrop, PairViews, Views, WorldViews


def crops(**options):
    return MultiCrop(global_size=32, local_size=16, n_local=3, patch_size=8, **options)


def pair(**options):
    return PairViews(**{"image_size": 24, **options})


CHILDREN = {
    "crops": crops,
    "pair": pair,
    "world": lambda: WorldViews(image_size=64, min_keep=1),
    "masked": lambda: MaskedView(image_size=64, min_keep=1),
}


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (4, 90, 110), dtype=np.uint8)


def batch_of(views, images, seed=0):
    """Return a batch as the data modules make it, with a generator for each sample and batch."""
    samples = [
        views(image, np.random.default_rng((seed, number))) for number, image in enumerate(images)
    ]
    return views.collate(samples, np.random.default_rng((seed, len(images), 1)))


def equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_a_batch_is_one_batch_of_each(images):
    views = JointViews({name: make() for name, make in CHILDREN.items()})
    sample = views(images[0], np.random.default_rng(0))
    batch = batch_of(views, images)
    assert list(batch) == list(sample) == list(CHILDREN)
    for name, make in CHILDREN.items():
        assert sample[name].keys() == make()(images[0], np.random.default_rng(0)).keys()
        assert batch[name].keys() == batch_of(make(), images).keys()
        assert all(len(tensor) == len(images) for tensor in batch[name].values())


@pytest.mark.parametrize("name", CHILDREN)
def test_an_only_child_is_what_it_is_alone(images, name):
    views = CHILDREN[name]()
    joint = JointViews({name: views})
    sample = views(images[0], np.random.default_rng(5))
    assert equal(joint(images[0], np.random.default_rng(5))[name], sample)
    assert equal(batch_of(joint, images)[name], batch_of(views, images))


def test_the_first_child_is_what_it_is_alone(images):
    joint = JointViews({"crops": crops(), "pair": pair()})
    assert equal(batch_of(joint, images)["crops"], batch_of(crops(), images))


def test_an_only_child_leaves_the_generator_as_it_does_alone(images):
    generators = [np.random.default_rng(5) for _ in range(2)]
    for views, rng in zip((pair(), JointViews({"pair": pair()})), generators, strict=True):
        views.collate([views(images[0], rng), views(images[1], rng)], rng)
    assert generators[0].random() == generators[1].random()
    # Nor does it spawn: the children of the two are the same.
    assert generators[0].spawn(1)[0].random() == generators[1].spawn(1)[0].random()


def test_others_do_not_depend_on_what_the_first_draws(images):
    firsts = [crops(), crops(preset="dinov2"), pair(), CHILDREN["masked"]()]
    batches = [
        batch_of(JointViews({"first": first, "world": CHILDREN["world"]()}), images)
        for first in firsts
    ]
    for batch in batches[1:]:
        assert equal(batch["world"], batches[0]["world"])


def test_others_do_not_depend_on_those_after_them(images):
    two = JointViews({"crops": crops(), "pair": pair()})
    three = JointViews({"crops": crops(), "pair": pair(), "world": CHILDREN["world"]()})
    assert equal(batch_of(two, images)["pair"], batch_of(three, images)["pair"])


def test_equal_children_have_streams_of_their_own(images):
    batch = batch_of(JointViews({"a": pair(), "b": pair(), "c": pair()}), images)
    assert not equal(batch["a"], batch["b"])
    assert not equal(batch["b"], batch["c"])
    masks = batch_of(JointViews({"a": crops(), "b": crops()}), images)
    assert not torch.equal(masks["a"]["masks"], masks["b"]["masks"])


class Numbers(Views):
    """Shows the first number drawn for a sample and for a batch."""

    def __call__(self, image, rng):
        return {"sample": torch.tensor(rng.random(), dtype=torch.float64)}

    def collate(self, samples, rng):
        batch = super().collate(samples, rng)
        return batch | {"batch": torch.tensor(rng.random(), dtype=torch.float64)}


def test_streams_are_apart_from_each_other_and_from_those_of_the_data(images):
    names = "abcde"
    views = JointViews({name: Numbers() for name in names})
    seed, epoch, numbers = 7, 0, range(6)
    drawn = [np.random.default_rng((seed, epoch, 0, 0, 2)).random()]  # the order of the epoch
    for number in numbers:
        sample = views(images[0], np.random.default_rng((seed, epoch, number)))
        drawn += [sample[name]["sample"].item() for name in names]
        for rank in range(3):
            batch = views.collate([sample], np.random.default_rng((seed, epoch, number, rank, 1)))
            drawn += [batch[name]["batch"].item() for name in names]
    assert len(set(drawn)) == len(drawn) == 1 + len(names) * len(numbers) * 4


def test_same_generator_same_views(images):
    views = JointViews({"crops": crops(), "pair": pair()})
    first, again, other = (batch_of(views, images, seed) for seed in (3, 3, 4))
    for name in first:
        assert equal(first[name], again[name])
        assert not equal(first[name], other[name])


def test_size_and_normalisation_are_the_first_ones():
    normalisation = {"in_chans": 3, "mean": 0.1, "std": 0.2}
    views = JointViews({"crops": crops(**normalisation), "pair": pair(**normalisation)})
    assert (views.image_size, views.in_chans, views.mean, views.std) == (32, 3, 0.1, 0.2)
    view = views.eval_view()
    assert (view.image_size, view.in_chans, view.mean, view.std) == (32, 3, 0.1, 0.2)


def test_eval_view_is_the_first_ones_own():
    first = EvalView(image_size=24, resize=32)
    assert JointViews({"still": first, "pair": pair()}).eval_view() is first


def test_survives_a_worker(images):
    views = JointViews({"crops": crops(), "pair": pair()})
    restored = pickle.loads(pickle.dumps(views))
    first, second = (batch_of(each, images[:2]) for each in (views, restored))
    assert all(equal(first[name], second[name]) for name in first)


def test_is_given_in_a_config():
    parser = ArgumentParser()
    parser.add_argument("--views", type=Views)
    children = {
        "dinov2": {
            "class_path": "cxrssl.views.MultiCrop",
            "init_args": {"global_size": 32, "local_size": 16, "patch_size": 8},
        },
        "mlvicx": {
            "class_path": "cxrssl.views.PairViews",
            "init_args": {
                "image_size": 24,
                "preset": "vicreg",
                "photometry": [{"blur_kernel": 23}, {"solarise_p": 0.1}],
            },
        },
    }
    config = {"class_path": "cxrssl.views.JointViews", "init_args": {"views": children}}
    parsed = parser.parse_object({"views": config})
    views = parser.instantiate(parsed).views
    assert isinstance(views, JointViews)
    assert [type(child) for child in views.views.values()] == [MultiCrop, PairViews]
    assert views.views["mlvicx"].photometry[0].blur_kernel == 23
    # What is saved beside a run reads back as the same views.
    again = parser.instantiate(parser.parse_string(parser.dump(parsed))).views
    assert list(again.views) == ["dinov2", "mlvicx"]
    assert again.views["mlvicx"].photometry == views.views["mlvicx"].photometry


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "a-b", "1st"])
def test_names_must_be_identifiers(name):
    with pytest.raises(InputError, match=f"letters, digits and underscores .* got {name!r}"):
        JointViews({"crops": crops(), name: pair()})


@pytest.mark.parametrize("name", ["image_number", "failures"])
def test_names_must_be_free(name):
    with pytest.raises(InputError, match=f"{name} is an entry of every batch already"):
        JointViews({name: pair()})


def test_there_must_be_a_child():
    with pytest.raises(InputError, match="views is empty"):
        JointViews({})


@pytest.mark.parametrize(
    ("option", "value", "default"),
    [("in_chans", 3, 1), ("mean", 0.4, 0.5307), ("std", 0.3, 0.2583)],
)
def test_normalisation_must_agree(option, value, default):
    message = f"{option} must be the same .* got {default} for b and {value} for c"
    with pytest.raises(InputError, match=message):
        JointViews({"a": crops(), "b": pair(), "c": pair(**{option: value})})

import pytest
import torch

from cxrssl.data.failures import TooManyCorruptImagesError
from cxrssl.data.phantom_datamodule import PhantomDataModule
from cxrssl.errors import InputError
from tests.data.labelled import (
    BROKEN,
    FINDINGS,
    UNLABELLED,
    N,
    data_module,
    names,
    rows_of,
    views,
    write_labelled,
)

SHAPES = [(4, 64), (1, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_labelled(folder)
    return folder


def encode(images):
    tokens = images.reshape(len(images), 4, 64)
    return [tokens, tokens.mean((1, 2))[:, None, None]]


def cache(data, folder, dtype="float32", encoder="abc", function=encode):
    data.setup("fit")
    data.cache_features(
        function,
        SHAPES,
        {"encoder": encoder},
        device=torch.device("cpu"),
        folder=str(folder / "cache"),
        dtype=dtype,
    )
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_batches_are_those_of_the_images(tmp_path, workers):
    write_labelled(tmp_path, nodule=UNLABELLED)
    (tmp_path / "004.png").write_bytes(BROKEN)
    options = {"views": views(("nodule",), text=True), "max_corrupt": 0.1}
    plain = data_module(tmp_path, **options)
    data = cache(data_module(tmp_path, num_workers=workers, **options), tmp_path)
    for split in ("train", "val", "test"):
        batches = zip(plain.label_dataloader(split), data.label_dataloader(split), strict=True)
        for images, features in batches:
            assert features.keys() == images.keys() - {"image"} | {"levels"}
            for level, expected in zip(features["levels"], encode(images["image"]), strict=True):
                assert torch.equal(level, expected)
            torch.testing.assert_close(
                features["labels"], images["labels"], rtol=0, atol=0, equal_nan=True
            )
            assert torch.equal(features["image_number"], images["image_number"])
            assert torch.equal(features["readable"], images["readable"])
            assert features["text"] == images["text"]
    shown = [batch["image_number"].tolist() for batch in data.train_dataloader()]
    expected = data_module(tmp_path, views=views(("nodule",))).train_dataloader()
    plans = [plan.images.tolist() for plan in expected.sampler]
    assert shown == plans


def test_a_subset_reads_the_features_of_its_own_images(folder, tmp_path):
    data = cache(data_module(folder, subset=8), tmp_path)
    numbers = names(data.shown_rows("train"))
    whole = rows_of(data_module(folder).label_dataloader("train"), "image")
    (first, *_) = zip(*[batch["levels"] for batch in data.label_dataloader("train")], strict=True)
    assert torch.equal(torch.cat(first), encode(whole[numbers])[0])


def test_features_are_those_of_one_run(folder, tmp_path):
    data = cache(data_module(folder), tmp_path)
    assert "levels" in next(iter(data.val_dataloader()))
    data.setup("fit")
    assert "image" in next(iter(data.val_dataloader()))


def test_images_that_are_labelled_later_have_no_features(tmp_path):
    write_labelled(tmp_path, nodule=UNLABELLED)
    data = cache(data_module(tmp_path, ("nodule",)), tmp_path)
    data.views.targets = views(("edema",)).targets
    with pytest.raises(InputError, match="2 of 24 images have no features"):
        data.train_dataloader()


def test_other_views_have_a_store_of_their_own(folder, tmp_path):
    cache(data_module(folder), tmp_path)
    cache(data_module(folder, views=views(FINDINGS, mean=0.2)), tmp_path)
    cache(data_module(folder), tmp_path, encoder="abd")
    cache(data_module(folder), tmp_path, dtype="float16")
    # Random views differ in training alone.
    cache(data_module(folder, views=views(FINDINGS, degrees=3.0)), tmp_path)
    stores = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(stores) == 4


def test_an_index_without_a_labelled_image_is_not_encoded(tmp_path):
    write_labelled(tmp_path, nodule=[None] * N)
    with pytest.raises(InputError, match="no image of the index has any label of nodule"):
        cache(data_module(tmp_path, ("nodule",), labels=["nodule"]), tmp_path)


@pytest.mark.filterwarnings("ignore:.*images could not be read")
def test_corrupt_images_count_when_features_are_found_again(tmp_path):
    write_labelled(tmp_path)
    for number in (3, 30):
        (tmp_path / f"{number:03d}.png").write_bytes(BROKEN)
    with pytest.warns(UserWarning, match=r"2 of 36 images .*(\n.*\.png.*){2}"):
        cache(data_module(tmp_path, max_corrupt=0.06), tmp_path).teardown("fit")
    message = r"2 of 36 images .*(\n.*\.png had no features when it was cached){2}"
    with pytest.warns(UserWarning, match=message):
        cache(data_module(tmp_path, max_corrupt=0.06), tmp_path, function=None).teardown("fit")
    with pytest.raises(TooManyCorruptImagesError, match="max_corrupt allows 1"):
        cache(data_module(tmp_path, max_corrupt=0.0), tmp_path, function=None)


def phantom(**options):
    defaults = {"n_images": 12, "size": 32, "views": views(("nodule",)), "batch_size": 4}
    return PhantomDataModule(**(defaults | {"num_workers": 0, "split": (0.5, 0.5, 0.0)} | options))


def test_features_of_another_phantom_are_not_taken_for_this_one_s(tmp_path):
    """The images of all phantoms have the same paths."""
    stores = []
    for options in ({}, {"phantom_seed": 1}, {"severity": 2.0}, {"size": 48}, {}):
        data = cache(phantom(**options), tmp_path)
        batch = next(iter(data.label_dataloader("train")))
        stores.append(batch["levels"][0])
        plain = phantom(**options)
        images = next(iter(plain.label_dataloader("train")))["image"]
        assert torch.equal(batch["levels"][0], encode(images)[0])
    assert torch.equal(stores[0], stores[-1])

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from cxrssl.backbones import ConvNet
from cxrssl.data import TooManyCorruptImagesError
from cxrssl.errors import InputError
from cxrssl.evaluation.embeddings import embed_images, evaluation_view
from tests.evaluation.stand_ins import data_of, make_index, small_vit

FINDINGS = ["left", "noise"]


def embed(tmp_path, backbone, size=None, corrupt=(), max_corrupt=0.5, **options):
    # Images that were written again would not be those of a cache.
    path = tmp_path / "index.csv"
    frame = pd.read_csv(path) if path.exists() else make_index(tmp_path)
    for number in corrupt:
        (tmp_path / f"{number:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n but nothing else")
    data = data_of(frame, tmp_path, max_corrupt=max_corrupt)
    view = evaluation_view(backbone, FINDINGS, size)
    return embed_images(backbone, data, data.index, view, **options)


def test_features_are_the_pooled_tokens_of_the_normalised_images(tmp_path):
    backbone = small_vit()
    backbone.normalisation = (0.3, 0.2)
    features, readable = embed(tmp_path, backbone)
    assert readable.all()
    assert features.shape == (144, 32)
    images = np.stack([cv2.imread(str(tmp_path / f"{n:03d}.png"), 0) for n in range(144)])
    x = torch.from_numpy((images / 255 - 0.3) / 0.2).float()[:, None]
    with torch.no_grad():
        tokens = backbone(x)
    np.testing.assert_allclose(features, tokens.pool("both"), atol=1e-5)
    for pooling in ("class", "mean"):
        found = embed(tmp_path, backbone, pooling=pooling).features
        np.testing.assert_allclose(found, tokens.pool(pooling), atol=1e-5)


def test_a_cached_float32_feature_is_the_same_and_is_found_again(tmp_path, monkeypatch):
    backbone = small_vit()
    options = {"cache": str(tmp_path / "cache"), "cache_dtype": "float32"}
    direct = embed(tmp_path, backbone).features
    np.testing.assert_array_equal(embed(tmp_path, backbone, **options).features, direct)
    monkeypatch.setattr("cxrssl.evaluation.embeddings.image_batches", lambda *_: iter(()))
    np.testing.assert_array_equal(embed(tmp_path, backbone, **options).features, direct)
    half = embed(tmp_path, backbone, pooling="class", **options).features
    np.testing.assert_array_equal(half, direct[:, :16])


def test_another_size_is_another_view(tmp_path):
    backbone = small_vit()
    cache = {"cache": str(tmp_path / "cache"), "cache_dtype": "float32"}
    small, large = (embed(tmp_path, backbone, size, **cache).features for size in (32, 64))
    assert small.shape == large.shape
    assert not np.allclose(small, large)


@pytest.mark.parametrize("cache", [False, True])
def test_corrupt_images_are_told(tmp_path, cache):
    options = {"cache": str(tmp_path / "cache")} if cache else {}
    features, readable = embed(tmp_path, small_vit(), corrupt=(3, 80), **options)
    assert np.flatnonzero(~readable).tolist() == [3, 80]
    assert np.isfinite(features).all()
    with pytest.raises(TooManyCorruptImagesError, match="2 of 144 images could not be read"):
        embed(tmp_path, small_vit(1), corrupt=(3, 80), max_corrupt=0.01, **options)


def test_a_convolutional_encoder_has_a_mean_alone(tmp_path):
    backbone = ConvNet("test_resnet", img_size=32, in_chans=3)
    assert embed(tmp_path, backbone).features.shape == (144, backbone.embed_dim)


def test_patches_must_tile_the_images():
    with pytest.raises(InputError, match=r"images of 40 pixels are not tiled .* 16 pixels"):
        evaluation_view(small_vit(), FINDINGS, 40)

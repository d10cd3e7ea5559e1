"""The labelled images of an index as the features of frozen encoders."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxrssl.backbones import Backbone
from cxrssl.data import CXRDataModule
from cxrssl.errors import InputError
from cxrssl.evaluation.cohort import Cohort, choose_images
from cxrssl.evaluation.embeddings import Embedded, embed_images, evaluation_view
from cxrssl.evaluation.options import EvaluationOptions
from cxrssl.views import EvalView

__all__ = ["EncodedCohort", "Features", "encode_cohort"]


@dataclass(frozen=True)
class Features:
    """What an encoder makes of a cohort at one size."""

    encoder: str
    view: EvalView
    features: NDArray[np.float32]
    """(n, D)."""


@dataclass(frozen=True)
class EncodedCohort:
    """Labelled images and their features.

    Attributes:
        encoders: By name.
        data: Where the images are from.
        options: How they were chosen and encoded.
        cohort: The n images that could be read.
        features: Of each encoder at each size.
        not_scored: Findings that cannot be scored, and what they lack.
        unreadable: Images that could not be read.
    """

    encoders: Mapping[str, Backbone]
    data: CXRDataModule
    options: EvaluationOptions
    cohort: Cohort
    features: list[Features]
    not_scored: dict[str, str]
    unreadable: int


def encode_cohort(
    encoders: Mapping[str, Backbone],
    data: CXRDataModule,
    options: EvaluationOptions | None = None,
) -> EncodedCohort:
    """Return the labelled images of an index with the features that encoders make of them.

    Args:
        encoders: See :func:`cxrssl.evaluation.evaluate`, as for the rest.
        data: The images; its views become those of the encoders.
        options: Which images and which features; all of it by default.

    Raises:
        InputError: If the index lacks a wanted label, a split is empty, no finding can be scored,
            or an encoder and the images do not fit.
    """
    options = EvaluationOptions() if options is None else options
    if not encoders:
        raise InputError("there is no encoder to evaluate: give at least one")
    data.setup("test")
    findings = options.findings or data.labels
    if not findings:
        raise InputError("the index has no labels to evaluate on: name them with data.labels")
    views = [
        (name, evaluation_view(backbone, findings, size))
        for name, backbone in encoders.items()
        for size in options.sizes or [backbone.image_size]
    ]
    data.views = views[0][1]
    chosen = choose_images(data, options)
    embedded = [_embed(encoders[name], data, chosen, view, options) for name, view in views]
    readable = np.logical_and.reduce([images.readable for images in embedded])
    cohort = chosen.keep(readable)
    features = [
        Features(name, view, images.features[readable])
        for (name, view), images in zip(views, embedded, strict=True)
    ]
    return EncodedCohort(
        encoders,
        data,
        options,
        cohort,
        features,
        chosen.not_scored | cohort.not_scored,
        int(np.sum(~readable)),
    )


def _embed(
    backbone: Backbone,
    data: CXRDataModule,
    cohort: Cohort,
    view: EvalView,
    options: EvaluationOptions,
) -> Embedded:
    """Return the features of a cohort as one encoder sees it at one size."""
    data.views = view
    return embed_images(
        backbone,
        data,
        cohort.rows,
        view,
        pooling=options.pooling,
        cache=options.cache,
        cache_dtype=options.cache_dtype,
    )

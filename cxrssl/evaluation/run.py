"""The evaluation of frozen encoders on the labelled images of an index."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import cxrssl
from cxrssl.analysis.resampling import patient_numbers
from cxrssl.backbones import Backbone
from cxrssl.data import SPLITS, CXRDataModule
from cxrssl.errors import InputError
from cxrssl.evaluation.cohort import Cohort, choose_images
from cxrssl.evaluation.embeddings import Embedded, embed_images, evaluation_view
from cxrssl.evaluation.leaks import state_level
from cxrssl.evaluation.options import EvaluationOptions
from cxrssl.evaluation.results import Results
from cxrssl.evaluation.tables import Tables
from cxrssl.tasks.encoder import fingerprint
from cxrssl.views.eval_view import EvalView

__all__ = ["evaluate"]


def evaluate(
    encoders: Mapping[str, Backbone],
    data: CXRDataModule,
    options: EvaluationOptions | None = None,
) -> Results:
    """Return what frozen encoders are worth on labelled images.

    Every encoder embeds the labelled images, at each size. Findings are learnt from the features of
    the training images; what is chosen is chosen on the validation images; scores are those of the
    test images, with intervals from resamples of whole patients. An index without a validation
    split gives some of its training patients for one. A finding is scored where every split shows
    both of its classes. The first encoder is compared with each of the others at each size, and
    each encoder's first size with its others, on the same resamples.

    Args:
        encoders: By the names they have in the results. They are left in evaluation mode.
        data: The images; its views become those of the encoders.
        options: What is measured; all of it by default.

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
    tables = Tables(cohort, options)
    entries = [
        tables.entry(name, view.image_size, images.features[readable])
        for (name, view), images in zip(views, embedded, strict=True)
    ]
    metadata = tables.metadata(entries)
    return Results(
        scores=tables.scores(entries),
        comparison=tables.comparison(entries),
        subgroups=tables.subgroups(entries),
        few_label=tables.few_label(entries),
        metadata=metadata,
        predictions=tables.predictions(entries),
        description={
            "version": cxrssl.__version__,
            "options": asdict(options),
            "encoders": {name: _describe(backbone) for name, backbone in encoders.items()},
            "data": _counts(cohort)
            | {
                "class": type(data).__name__,
                "validation_from_training": data.rows("val").empty,
                "unreadable": int(np.sum(~readable)),
            },
            "leaks": state_level(
                data,
                cohort.rows.iloc[cohort.places("test")],
                options.pretrained_on,
                options.fingerprints,
            ),
            "findings": cohort.findings,
            "not_scored": chosen.not_scored | cohort.not_scored,
            "metadata_left_out": metadata.attrs.get("left_out", {}),
        },
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


def _describe(backbone: Backbone) -> dict[str, Any]:
    return {
        "class": type(backbone).__name__,
        "arguments": backbone.arguments,
        "fingerprint": fingerprint(backbone),
        "normalisation": backbone.normalisation,
    }


def _counts(cohort: Cohort) -> dict[str, dict[str, int]]:
    """Return the numbers of images and patients of each split."""
    return {
        "images": {split: len(cohort.places(split)) for split in SPLITS},
        "patients": {
            split: int(patient_numbers(cohort.patients(split)).max()) + 1 for split in SPLITS
        },
    }

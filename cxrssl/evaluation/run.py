"""The evaluation of frozen encoders on the labelled images of an index."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import cxrssl
from cxrssl.analysis.resampling import patient_numbers
from cxrssl.backbones import Backbone
from cxrssl.data import SPLITS, CXRDataModule
from cxrssl.evaluation.cohort import Cohort
from cxrssl.evaluation.encoded import EncodedCohort, encode_cohort
from cxrssl.evaluation.leaks import state_level
from cxrssl.evaluation.options import EvaluationOptions
from cxrssl.evaluation.results import Results
from cxrssl.evaluation.tables import Tables
from cxrssl.tasks.encoder import fingerprint

__all__ = ["evaluate", "tabulate"]


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
    return tabulate(encode_cohort(encoders, data, options))


def tabulate(encoded: EncodedCohort) -> Results:
    """Return what the features of encoders are worth; see :func:`evaluate`."""
    options, cohort, data = encoded.options, encoded.cohort, encoded.data
    tables = Tables(cohort, options)
    entries = [
        tables.entry(each.encoder, each.view.image_size, each.features) for each in encoded.features
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
            "encoders": {name: _describe(each) for name, each in encoded.encoders.items()},
            "data": _counts(cohort)
            | {
                "class": type(data).__name__,
                "validation_from_training": data.rows("val").empty,
                "unreadable": encoded.unreadable,
            },
            "leaks": state_level(
                data,
                cohort.rows.iloc[cohort.places("test")],
                options.pretrained_on,
                options.fingerprints,
            ),
            "findings": cohort.findings,
            "not_scored": encoded.not_scored,
            "metadata_left_out": metadata.attrs.get("left_out", {}),
        },
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

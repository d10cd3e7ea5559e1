"""The nearest images of other patients, and what they have in common."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.analysis.neighbours import Neighbours, label_agreement, nearest_images
from cxrssl.reporting.content import Block, Gallery, Missing, Picture, Section, Table
from cxrssl.reporting.pictures import radiograph
from cxrssl.reporting.sections.parts import part_of_each
from cxrssl.reporting.subjects import Subject, Topic, see
from cxrssl.reporting.text import with_interval

__all__ = ["agreement", "retrieval_section"]

_QUERIES = 4


def agreement(topic: Topic, subject: Subject) -> pd.DataFrame:
    """Return how many of the nearest training images of test images share their findings.

    Raises:
        InputError: If there are too few training images of other patients.
    """
    cohort = topic.cohort
    test, train = cohort.places("test"), cohort.places("train")
    found = _nearest(topic, subject, test)
    return label_agreement(
        found,
        cohort.labels[test],
        cohort.labels[train],
        cohort.findings,
        patients=cohort.patients("test"),
        replicates=topic.encoded.options.replicates,
        seed=topic.encoded.options.seed,
    )


def retrieval_section(topic: Topic) -> Section:
    """Return neighbours of some test images, and the precision at k of all of them."""
    k = topic.options.neighbours
    return Section(
        "retrieval",
        "Nearest neighbours",
        f"The {k} training images of other patients whose features are most like those of a test "
        "image, by cosine similarity. Green captions share a finding with it.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    rows = [
        [
            str(row["finding"]).replace("_", " "),
            f"{row['images']:,}",
            with_interval(row),
            f"{row['chance']:.3f}",
        ]
        for row in agreement(topic, subject).to_dict("records")
    ]
    k = topic.options.neighbours
    table = Table(
        ["Finding", "Test images with it", f"Precision at {k}", "Share in training"],
        rows,
        f"Share of the {k} neighbours that have the finding too, with 95 % intervals over patients",
    )
    if topic.options.no_images:
        return [table, Missing("Pictures were left out of this card.")]
    return [table, Gallery(_rows(topic, subject))]


def _rows(topic: Topic, subject: Subject) -> list[tuple[str, list[Picture]]]:
    queries = topic.sample[:_QUERIES]
    found = _nearest(topic, subject, queries)
    train = topic.cohort.places("train")
    images = see(subject, topic.data, topic.cohort.rows.iloc[queries])
    rows = []
    for number, place in enumerate(queries.tolist()):
        neighbours = train[found.numbers[number]]
        pictures = [radiograph(images[number], f"Test image {number + 1}", topic.caption(place))]
        shown = see(subject, topic.data, topic.cohort.rows.iloc[neighbours])
        for image, neighbour, alike in zip(
            shown, neighbours.tolist(), found.similarity[number].tolist(), strict=True
        ):
            caption = f"{alike:.2f}: {topic.caption(neighbour)}"
            shares = bool(
                ((topic.cohort.labels[place] == 1) & (topic.cohort.labels[neighbour] == 1)).any()
            )
            pictures.append(radiograph(image, "A training image", caption, good=shares))
        rows.append((f"Image {number + 1}", pictures))
    return rows


def _nearest(topic: Topic, subject: Subject, queries: NDArray[np.intp]) -> Neighbours:
    cohort, features = topic.cohort, subject.encoded.features
    train = cohort.places("train")
    owners = topic.owners
    return nearest_images(
        features[queries],
        features[train],
        topic.options.neighbours,
        query_patients=owners[queries],
        patients=owners[train],
    )

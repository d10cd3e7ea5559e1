"""Whether the representation has collapsed: rank, spread, spectrum and norms."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.health import health_measures, plot_norms, plot_spectrum
from cxrssl.errors import InputError
from cxrssl.reporting.content import Block, Charts, Missing, Part, Section, Table, Tile
from cxrssl.reporting.pictures import chart
from cxrssl.reporting.subjects import Topic, encode_rows
from cxrssl.reporting.text import count, interval, with_interval

__all__ = ["health_section"]

_HEADLINE = "effective rank, centred"
_NORM_IMAGES = 32
_MOST_IMAGES = 2000  # of which singular values are taken, some sixty times


def health_section(topic: Topic) -> Section:
    """Return rank, spread, spectrum and norms of the features of the test images."""
    places = _spread(topic.cohort.places("test"), _MOST_IMAGES)
    features = {each.name: each.encoded.features[places] for each in topic.subjects}
    owners = topic.owners[places]
    measured = {
        name: health_measures(of, owners).set_index("measure").to_dict("index")
        for name, of in features.items()
    }
    rows = [
        [str(measure), *(with_interval(of[measure], style=".2f") for of in measured.values())]
        for measure in next(iter(measured.values()))
    ]
    rows.append(["width of the features", *(str(of.shape[1]) for of in features.values())])
    names = list(features) if len(features) > 1 else ["value"]
    blocks: list[Block] = [
        Table(
            ["Measure", *names],
            rows,
            f"Features of {count(len(places), 'test image')}, with 95 % intervals of a jackknife "
            "over patients",
        ),
        _charts(topic, features),
    ]
    return Section(
        "health",
        "Health of the representation",
        "Effective rank counts the directions in use (RankMe) and can be compared on the same "
        "images only; a spread near 1 means that features point everywhere, near 0 that all images "
        "look alike. Norms are those before the last normalisation; a few patches many times as "
        "long as the others are artefacts.",
        [Part(blocks)],
        [_tile(topic, measured, len(places))],
    )


def _spread(places: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most so many places, evenly spaced."""
    chosen: NDArray[np.intp] = places[:: max(1, -(-len(places) // most))]
    return chosen


def _tile(topic: Topic, measured: Mapping[str, Mapping[Any, Any]], images: int) -> Tile:
    values = []
    for name, of in measured.items():
        rank = of[_HEADLINE]
        values.append(
            (name if len(measured) > 1 else "", f"{rank['value']:.1f}", interval(rank, ".1f"))
        )
    widths = " and ".join({str(each.encoded.features.shape[1]): None for each in topic.subjects})
    return Tile("Effective rank", values, f"of {widths} dimensions, {count(images, 'test image')}")


def _charts(topic: Topic, features: Mapping[str, NDArray[np.floating]]) -> Block:
    places = _spread(topic.cohort.places("test"), _NORM_IMAGES)
    try:
        charts = [
            chart(
                partial(plot_spectrum, features),
                "Share of the features' variance along each principal component.",
            )
        ]
        rows = topic.cohort.rows.iloc[places]
        for subject in topic.subjects:
            tokens = encode_rows(subject, topic.data, rows)
            norms = {"patch tokens": tokens.patch_norms}
            if tokens.class_norms is not None:
                norms["class token"] = tokens.class_norms
            charts.append(
                chart(
                    partial(plot_norms, norms),
                    f"Histogram of token norms of {subject.name}.",
                    f"{subject.name}, {count(len(rows), 'test image')}",
                )
            )
    except InputError as error:
        return Missing(f"Spectrum and norms are not shown: {error}")
    return Charts(charts)

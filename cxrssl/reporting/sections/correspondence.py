"""Which patches of other patients are most like a patch, for given points and for clicks."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from numpy.typing import NDArray

from cxrssl.analysis.axes import show_image
from cxrssl.analysis.correspondence import (
    encode_tokens,
    landmark_errors,
    patch_at,
    patch_similarity,
    plot_correspondence,
)
from cxrssl.analysis.resampling import patients_of
from cxrssl.reporting.content import Block, Films, Gallery, Missing, Picture, Section, Table, Text
from cxrssl.reporting.landmarks import in_view, read_landmarks
from cxrssl.reporting.pictures import picture, radiograph
from cxrssl.reporting.sections.parts import need_pictures, part_of_each
from cxrssl.reporting.subjects import Subject, TokenSample, Topic, encode_rows
from cxrssl.reporting.text import with_interval

__all__ = ["correspondence_section"]

_MOST_PATCHES = 40
"""Rows and columns of patches in the page; finer grids are averaged."""
_COLOUR = "#22d3ee"
_SHOWN = 6
_DEFAULT = {
    "Point 1": (0.34, 0.36),
    "Point 2": (0.66, 0.36),
    "Point 3": (0.55, 0.58),
    "Point 4": (0.32, 0.68),
}
"""Where no landmarks are given, in shares of the first image."""

Points = Sequence[Mapping[str, tuple[float, float]]]


class _Compared(NamedTuple):
    """Images whose patches are compared, and the points of each in shares of its view."""

    tokens: TokenSample
    points: Points
    owners: list[object]
    outside: int
    """Landmarks outside the views."""
    lettered: bool
    """Whether its images are others than those of the other sections."""

    @property
    def names(self) -> list[str]:
        """All landmarks."""
        return list(dict.fromkeys(name for of_image in self.points for name in of_image))

    def first(self, name: str) -> tuple[int, tuple[float, float]]:
        """Return the first image that has a landmark, and where."""
        number = next(n for n, of_image in enumerate(self.points) if name in of_image)
        return number, self.points[number][name]

    def label(self, number: int) -> str:
        """Return what an image is called."""
        return f"Image {chr(ord('A') + number) if self.lettered else number + 1}"


def correspondence_section(topic: Topic) -> Section:
    """Return best matches of points between patients, and the view that answers a click."""
    return Section(
        "correspondence",
        "The same place in other patients",
        "How alike a patch is to every patch of other patients' radiographs, by the cosine "
        "similarity of their tokens (RAD-DINO, figure 3). Brighter is more alike; the ring marks "
        "the best match.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    compared = _compared(topic, subject)
    blocks: list[Block] = []
    if topic.options.landmarks is not None:
        blocks.append(_errors(topic, compared))
    if topic.options.no_images:
        return [*blocks, Missing("Pictures were left out of this card.")]
    need_pictures(topic)
    number = [each.name for each in topic.subjects].index(subject.name)
    rows = _rows(compared)
    blocks += [_films(compared, f"films-{number + 1}")]
    if rows:
        blocks += [
            Text("Ring: best match. Cross: the landmark itself, where it is known."),
            Gallery(rows),
        ]
    return blocks


def _compared(topic: Topic, subject: Subject) -> _Compared:
    if topic.options.landmarks is None:
        tokens = topic.tokens(subject)
        points: list[Mapping[str, tuple[float, float]]] = [_DEFAULT]
        points += [{}] * (len(tokens.images) - 1)
        return _Compared(_pooled(tokens), points, topic.owners[topic.sample].tolist(), 0, False)
    given = read_landmarks(topic.options.landmarks, topic.data, topic.options.images)
    tokens = encode_rows(subject, topic.data, given.rows)
    points, outside = [], 0
    for of_image, shape in zip(given.points, tokens.shapes.tolist(), strict=True):
        placed = {
            name: in_view(point, (shape[0], shape[1]), subject.encoded.view)
            for name, point in of_image.items()
        }
        outside += sum(point is None for point in placed.values())
        points.append({name: point for name, point in placed.items() if point is not None})
    owners = patients_of(given.rows).astype(object)
    known = owners.where(owners.notna(), None).tolist()
    return _Compared(_pooled(tokens), points, known, outside, True)


def _pooled(tokens: TokenSample) -> TokenSample:
    """Return tokens on a grid that a page can hold."""
    rows, columns = (min(side, _MOST_PATCHES) for side in tokens.grid)
    if (rows, columns) == tokens.grid:
        return tokens
    whole = torch.from_numpy(tokens.patches).transpose(1, 2).unflatten(2, tokens.grid)
    coarse = F.adaptive_avg_pool2d(whole, (rows, columns)).flatten(2).transpose(1, 2)
    return replace(tokens, patches=coarse.numpy(), grid=(rows, columns))


def _errors(topic: Topic, compared: _Compared) -> Block:
    """Return how far matches are from the landmarks themselves."""
    table = landmark_errors(
        compared.tokens.patches,
        compared.tokens.grid,
        compared.points,
        patients=compared.owners,
        replicates=topic.encoded.options.replicates,
        seed=topic.encoded.options.seed,
    )
    if table.empty:
        return Missing("No landmark is in images of two patients, so that no match can be judged.")
    rows = [
        [
            str(row["landmark"]),
            with_interval(row),
            f"{row['same place']:.3f}",
            f"{row['chance']:.3f}",
            f"{row['pairs']:,} of {row['images']:,} images",
        ]
        for row in table.to_dict("records")
    ]
    left = f" {compared.outside} points lie outside the views." if compared.outside else ""
    return Table(
        ["Landmark", "Match", "Same place", "Random", "Pairs"],
        rows,
        "Mean distance to the landmark in other patients, in shares of the image's side, with 95 % "
        "intervals over patients (from five on): of the best match, of the same place in the other "
        f"image, and of a random patch.{left}",
    )


def _films(compared: _Compared, key: str) -> Films:
    tokens = compared.tokens
    codes = encode_tokens(tokens.patches)
    points = []
    for name in compared.names:
        number, point = compared.first(name)
        points.append({"name": name, "image": number, "patch": patch_at(point, tokens.grid)})
    labels = [compared.label(number) for number in range(len(tokens.images))]
    payload: dict[str, Any] = {
        "grid": list(tokens.grid),
        "width": codes.codes.shape[-1],
        "codes": base64.b64encode(codes.codes.tobytes()).decode(),
        "points": points,
        "labels": labels,
    }
    pictures = [
        radiograph(image, label, label) for image, label in zip(tokens.images, labels, strict=True)
    ]
    return Films(key, pictures, payload)


def _rows(compared: _Compared) -> list[tuple[str, Sequence[Picture]]]:
    """Return a row for each landmark: where it is in the first image that has it, and matches."""
    tokens = compared.tokens
    rows: list[tuple[str, Sequence[Picture]]] = []
    for name in compared.names:
        query, point = compared.first(name)
        token = tokens.patches[query, patch_at(point, tokens.grid)]
        alike = patch_similarity(token, tokens.patches).reshape(-1, *tokens.grid)
        draw = partial(_mark, image=tokens.images[query], point=point)
        label = compared.label(query)
        pictures = [picture(draw, f"{name} in {label}.", f"{label}, the point")]
        for number, image in enumerate(tokens.images[:_SHOWN]):
            if number != query:
                draw_match = partial(
                    plot_correspondence,
                    image,
                    alike[number],
                    point=compared.points[number].get(name),
                    colour=_COLOUR,
                )
                label = compared.label(number)
                caption = f"{label}: {alike[number].max():.2f}"
                pictures.append(picture(draw_match, f"What is like {name} in {label}.", caption))
        rows.append((name, pictures))
    return rows


def _mark(axes: Axes, image: NDArray[np.floating], point: tuple[float, float]) -> None:
    show_image(axes, image)
    height, width = image.shape
    axes.plot(point[0] * width, point[1] * height, marker="x", color=_COLOUR, mew=2.2, ms=13)

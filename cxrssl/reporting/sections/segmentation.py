"""Outlines of structures by a decoder on the encoder."""

from collections.abc import Sequence
from functools import partial

from cxrssl.analysis.overlays import plot_overlay
from cxrssl.reporting.content import Block, Gallery, Missing, Picture, Section, Table
from cxrssl.reporting.pictures import picture, radiograph
from cxrssl.reporting.sections.parts import part_of_each
from cxrssl.reporting.subjects import Subject, Topic
from cxrssl.reporting.tasks import MaskResult, read_decoder
from cxrssl.reporting.text import with_interval

__all__ = ["segmentation_section"]

_STRUCTURES = 5


def segmentation_section(topic: Topic) -> Section:
    """Return Dice scores and overlays of the decoders that were given."""
    return Section(
        "segmentation",
        "Segmentation",
        "Masks of a decoder on the encoder. Green is the truth, dashed red the prediction; what is "
        "missed is filled green and what is too much red.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    if subject.decoder is None:
        return [Missing("Not shown: no decoder was given (--decoder).")]
    result = read_decoder(topic, subject)
    rows = [
        [
            str(row["structure"]).replace("_", " "),
            str(row["convention"]).replace("_", " "),
            with_interval(row, "mean"),
            f"{row['std']:.3f}",
            f"{row['images']:,}",
        ]
        for row in result.scores.to_dict("records")
    ]
    table = Table(
        ["Structure", "Empty masks", "Mean Dice", "Std over images", "Images"],
        rows,
        "Dice of the test images with masks, with 95 % intervals over patients",
    )
    if topic.options.no_images:
        return [table, Missing("Pictures were left out of this card.")]
    return [table, Gallery(_rows(result))]


def _rows(result: MaskResult) -> list[tuple[str, list[Picture]]]:
    """Return the radiographs, and a row of overlays for each structure."""
    images = result.examples["image"]
    names = [f"Masked image {number + 1}" for number in range(len(images))]
    radiographs = [
        radiograph(image, f"{name}.", name) for image, name in zip(images, names, strict=True)
    ]
    rows = [("Radiographs", radiographs)]
    for place, structure in enumerate(result.structures[:_STRUCTURES]):
        label = structure.replace("_", " ")
        overlays = [
            picture(
                partial(plot_overlay, image, truth[place], prediction[place]),
                f"{name}: true and predicted {label}.",
                name,
            )
            for image, name, truth, prediction in zip(
                images,
                names,
                result.examples["truth"],
                result.examples["prediction"],
                strict=True,
            )
        ]
        rows.append((label, overlays))
    return rows

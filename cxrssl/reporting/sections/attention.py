"""Where the class token looks, and where a GLoRI head looks for each finding."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cxrssl.analysis.attention import plot_attention_map
from cxrssl.backbones import ViT
from cxrssl.reporting.content import Block, Gallery, Missing, NotShownError, Section, Text
from cxrssl.reporting.pictures import picture, radiograph
from cxrssl.reporting.sections.parts import need_pictures, part_of_each
from cxrssl.reporting.subjects import Subject, Topic
from cxrssl.reporting.tasks import HeadResult, read_head
from cxrssl.reporting.text import with_interval

__all__ = ["attention_section"]

_HEADS, _FINDINGS = 4, 5
_SHOWN = 4


def attention_section(topic: Topic) -> Section:
    """Return maps of the class token's heads, and those of a GLoRI head for each finding."""
    return Section(
        "attention",
        "Where it looks",
        "Attention of the last block from the class token to the patches: the mean over heads and "
        "single heads, each stretched from its least to its greatest. A GLoRI head, where one is "
        "given, has a map for each finding, with the probability it gives below.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    blocks: list[Block] = []
    for make in (_class_token, _glori):
        try:
            blocks += make(topic, subject)
        except NotShownError as error:
            blocks.append(Missing(f"Not shown: {error}"))
    return blocks


def _class_token(topic: Topic, subject: Subject) -> list[Block]:
    need_pictures(topic)
    if not isinstance(subject.backbone, ViT) or not subject.backbone.has_class_token:
        raise NotShownError("the encoder has no class token whose attention could be seen.")
    tokens = topic.tokens(subject)
    assert tokens.attention is not None  # as the encoder has a class token
    rows = []
    for number, place in enumerate(topic.sample[:_SHOWN].tolist()):
        maps = tokens.attention[number]
        shown = [("mean", maps.mean(0))]
        shown += [(f"head {head + 1}", maps[head]) for head in range(min(_HEADS, len(maps)))]
        pictures = [radiograph(tokens.images[number], f"Image {number + 1}.", topic.caption(place))]
        for name, heat in shown:
            draw = partial(plot_attention_map, tokens.images[number], _stretched(heat))
            alt = f"Attention of the class token over image {number + 1}, {name}."
            pictures.append(picture(draw, alt, name))
        rows.append((f"Image {number + 1}", pictures))
    return [Text("Class token"), Gallery(rows)]


def _glori(topic: Topic, subject: Subject) -> list[Block]:
    if subject.head is None:
        return [Missing("No GLoRI head was given (--head), so that there is no map for a finding.")]
    result = read_head(topic, subject)
    blocks: list[Block] = [Text(f"GLoRI head: {_score(result)}.")]
    need_pictures(topic)
    order = np.argsort(-(result.labels == 1).sum(0), kind="stable")[:_FINDINGS]
    rows = []
    for number, image in enumerate(result.images[:_SHOWN]):
        pictures = [radiograph(image, f"Image {number + 1}.", "radiograph")]
        for column in order.tolist():
            name = result.findings[column].replace("_", " ")
            there = " (present)" if result.labels[number, column] == 1 else ""
            draw = partial(plot_attention_map, image, result.attention[number, :, column].mean(0))
            caption = f"{name}{there} {result.probabilities[number, column]:.2f}"
            pictures.append(picture(draw, f"Where the head looks for {name}.", caption))
        rows.append((f"Image {number + 1}", pictures))
    return [*blocks, Gallery(rows)]


def _stretched(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map from its least to its greatest attention, as DINO shows them."""
    low, high = heat.min(), heat.max()
    stretched: NDArray[np.float32] = (heat - low) / max(high - low, 1e-12)
    return stretched


def _score(result: HeadResult) -> str:
    macro = result.scores[
        (result.scores["finding"] == "macro") & (result.scores["metric"] == "auroc")
    ]
    if macro.empty:
        return "no finding can be scored"
    row = macro.iloc[0].to_dict()
    return f"macro AUROC {with_interval(row)} on {row['images']:,} test images"

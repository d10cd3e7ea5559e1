"""Principal components of patch tokens as colours."""

from collections.abc import Sequence
from functools import partial

from cxrssl.analysis.figures import patch_colours, plot_patch_colours
from cxrssl.reporting.content import Block, Gallery, Section
from cxrssl.reporting.pictures import picture, radiograph
from cxrssl.reporting.sections.parts import need_pictures, part_of_each
from cxrssl.reporting.subjects import Subject, Topic

__all__ = ["patches_section"]


def patches_section(topic: Topic) -> Section:
    """Return the first three principal components of patch tokens over radiographs."""
    return Section(
        "patches",
        "What patches see",
        "The first three principal components of the patch tokens of all these images together, as "
        "red, green and blue: one colour means the same in every image. Anatomy in steady colours "
        "is what dense tasks need; noise or the shape of the film is not.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    need_pictures(topic)
    tokens = topic.tokens(subject)
    colours = patch_colours(tokens.patches, tokens.grid)
    radiographs, components = [], []
    for number, image in enumerate(tokens.images):
        alt = f"Image {number + 1}"
        radiographs.append(radiograph(image, f"{alt}.", alt))
        draw = partial(plot_patch_colours, colours[number])
        components.append(picture(draw, f"Principal components of the patches of {alt}.", alt))
    return [Gallery([("Radiographs", radiographs), ("Components", components)])]

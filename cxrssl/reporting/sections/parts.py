"""What sections share: a part for each encoder, and what cannot be shown in its place."""

from collections.abc import Callable, Sequence

from cxrssl.reporting.content import Block, Missing, NotShownError, Part
from cxrssl.reporting.subjects import Subject, Topic

__all__ = ["need_pictures", "part_of_each"]


def part_of_each(topic: Topic, make: Callable[[Subject], Sequence[Block]]) -> list[Part]:
    """Return a part for each encoder; one that cannot be made says why, once for all.

    Args:
        topic: Whose encoders.
        make: Makes the blocks of one of them, or raises NotShownError.
    """
    parts = []
    for subject in topic.subjects:
        try:
            blocks: Sequence[Block] = make(subject)
        except NotShownError as error:
            blocks = [Missing(f"Not shown: {error}")]
        parts.append(Part(blocks, subject.name if len(topic.subjects) > 1 else ""))
    first = parts[0].blocks
    alike = all(part.blocks == first for part in parts) and isinstance(first[0], Missing)
    return [Part(first)] if alike else parts


def need_pictures(topic: Topic) -> None:
    """Refuse to show pixels where none are wanted.

    Raises:
        NotShownError: If they are not.
    """
    if topic.options.no_images:
        raise NotShownError("pictures were left out of this card.")

"""What pretraining has seen of the test images."""

from typing import Any

from cxrssl.reporting.content import Block, Missing, Part, Section, Table, Text, Tile
from cxrssl.reporting.subjects import Topic

__all__ = ["leak_words", "leaks_section"]

_MEANING = {
    "L0": "test images may have been seen in pretraining, without their labels",
    "L1": "no test image was seen in pretraining, but other images of a test patient may have been",
    "L2": "no image of a test patient was seen in pretraining",
    "unknown": "names alone do not tell whether images are shared",
}


def leaks_section(topic: Topic) -> Section:
    """Return the leak level and what it rests on."""
    leaks: dict[str, Any] = topic.results.description["leaks"]
    return Section(
        "leaks",
        "Leak level",
        "Whether pretraining has seen what the encoder is tested on: L2 is the strictest level.",
        [Part(_blocks(leaks))],
        [_tile(leaks)],
    )


def leak_words(leaks: dict[str, Any]) -> str:
    """Return the leak level as a clause."""
    if leaks["level"] is None:
        return "leak level not stated"
    return f"leak level {leaks['level']}: {_MEANING[leaks['level']]}"


def _tile(leaks: dict[str, Any]) -> Tile:
    level = leaks["level"]
    note = "give --pretrained_on" if level is None else _MEANING[level]
    return Tile("Leak level", [("", level or "not stated", "")], note)


def _blocks(leaks: dict[str, Any]) -> list[Block]:
    if leaks["level"] is None:
        return [
            Missing(
                "Not stated: the card was made without --pretrained_on, the indices that the "
                "encoders were pretrained on. Scores on images seen in pretraining flatter."
            )
        ]
    by = "names and perceptual hashes" if leaks["perceptual_hashes"] else "names alone"
    rows = [
        ["Test images", f"{leaks['images']:,}"],
        ["Of them in pretraining", f"{leaks['exposed']:,}"],
        ["Of patients in pretraining, image not", f"{leaks['of_patients']:,}"],
        ["Compared by", by],
    ]
    advice = (
        " Perceptual hashes would: cxrssl check INDEX --against INDEX writes them, --fingerprints "
        "reads them."
    )
    lacking = leaks["level"] == "unknown" and not leaks["perceptual_hashes"]
    return [
        Text(f"Level {leaks['level']}: {_MEANING[leaks['level']]}.{advice if lacking else ''}"),
        Table(["", "Count"], rows, "Test images against the images of pretraining"),
    ]

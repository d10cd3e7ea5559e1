"""What a report card is made of, before it becomes a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

__all__ = [
    "Block",
    "Card",
    "Charts",
    "Films",
    "Fold",
    "Gallery",
    "Missing",
    "NotShownError",
    "Part",
    "Picture",
    "Section",
    "Table",
    "Text",
    "Tile",
]


class NotShownError(Exception):
    """A part of the card that cannot be made; its text, a sentence, takes the part's place."""


@dataclass(frozen=True)
class Picture:
    """An image within the page.

    Attributes:
        source: Data URI.
        alt: What is to be seen, for those who cannot see it.
        caption: Below it.
        good: Whether the caption stands out.
    """

    source: str
    alt: str
    caption: str = ""
    good: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Missing:
    """Why something is not shown."""

    kind: ClassVar[str] = "missing"
    text: str


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its name."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts next to each other as far as there is room."""

    kind: ClassVar[str] = "charts"
    pictures: Sequence[Picture]
    size: Literal["small", "medium", "wide"] = "medium"
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Rows of small pictures, each row with a name."""

    kind: ClassVar[str] = "gallery"
    rows: Sequence[tuple[str, Sequence[Picture]]]


@dataclass(frozen=True)
class Films:
    """Radiographs in which a click on a patch shows what is like it in all others.

    Attributes:
        key: Identifier within the page.
        pictures: The radiographs.
        payload: Plain data that the script of the page reads.
    """

    kind: ClassVar[str] = "films"
    key: str
    pictures: Sequence[Picture]
    payload: dict[str, Any]


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown on demand, on a screen; in print they always are."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence["Block"]


Block: TypeAlias = Text | Missing | Table | Charts | Gallery | Films | Fold


@dataclass(frozen=True)
class Part:
    """Blocks below each other, of one encoder if it has a title."""

    blocks: Sequence[Block]
    title: str = ""


@dataclass(frozen=True)
class Tile:
    """A key number: its name, a value for each encoder, and what it is of."""

    name: str
    values: Sequence[tuple[str, str, str]]
    """Encoder (empty for the only one), value, interval."""
    note: str


@dataclass(frozen=True)
class Section:
    """A section of the page, its parts side by side.

    Attributes:
        key: Identifier within the page.
        title: Its heading.
        lead: One or two sentences on how to read it.
        parts: What it shows.
        tiles: Its key numbers.
    """

    key: str
    title: str
    lead: str
    parts: Sequence[Part] = ()
    tiles: Sequence[Tile] = ()

    @property
    def side_by_side(self) -> bool:
        """Whether there are parts to set next to each other; one alone gets the whole width."""
        full = [p for p in self.parts if any(not isinstance(b, Missing) for b in p.blocks)]
        return len(full) > 1


@dataclass(frozen=True)
class Card:
    """A whole report card."""

    title: str
    verdict: str
    subjects: Sequence[str]
    """What each encoder is, in a line."""
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    """Footer."""

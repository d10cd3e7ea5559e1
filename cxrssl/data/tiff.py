"""What has to be known and set in a TIFF file before OpenCV reads it as it is stored."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from cxrssl.data.reading import UnreadableError, check_frame, check_size

__all__ = ["prepare_tiff"]

_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_REDUCED, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_BYTES = 273, 274, 277, 279
_TILES, _TILE_BYTES, _EXTRA, _FORMAT = 324, 325, 338, 339


@dataclass(frozen=True)
class _TiffPage:
    """One directory of a TIFF file: where it stands, and the tags that are of interest here.

    Attributes:
        offset: Position of the directory.
        tags: Position of the entry and values, by tag.
    """

    offset: int
    tags: dict[int, tuple[int, tuple[int, ...]]]

    def values(self, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
        return self.tags[tag][1] if tag in self.tags else default

    def value(self, tag: int, default: int) -> int:
        return self.values(tag, (default,))[0]


def prepare_tiff(data: bytes, frame: int | None) -> tuple[bytes, bool]:
    """Return a TIFF file that OpenCV reads as stored, and whether its grey is still inverted.

    OpenCV honours the orientation and multiplies by alpha at 8 bits but not at 16, inverts
    MINISWHITE likewise, and opens the first page whatever it is. The tags are set so that none of
    this happens.
    """
    order = "<" if data.startswith(b"II") else ">"
    try:
        pages = [page for page in _tiff_pages(data, order) if not page.value(_REDUCED, 0) & 1]
    except (struct.error, IndexError):
        raise UnreadableError("its TIFF directory is damaged or cut short") from None
    page = pages[check_frame(frame, len(pages))] if pages else None
    if page is None:
        raise UnreadableError("its TIFF directory lists no image")
    check_size(page.value(_WIDTH, 0), page.value(_HEIGHT, 0))
    _check_tiff_samples(page)
    _check_tiff_extent(page, len(data))
    patched = bytearray(data)
    struct.pack_into(f"{order}I", patched, 4, page.offset)
    for tag, value in ((_ORIENTATION, 1), (_EXTRA, 0)):
        if tag in page.tags:
            struct.pack_into(f"{order}HIHH", patched, page.tags[tag][0] + 2, 3, 1, value, 0)
    inverted = page.value(_BITS, 1) == 16 and page.value(_PHOTOMETRIC, 1) == 0
    return bytes(patched), inverted


def _tiff_pages(data: bytes, order: str) -> Iterator[_TiffPage]:
    seen: set[int] = set()
    (offset,) = struct.unpack_from(f"{order}I", data, 4)
    while offset and offset not in seen:  # a damaged chain may be a circle
        seen.add(offset)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        end = offset + 2 + 12 * count
        tags = {}
        for entry in range(offset + 2, end, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", data, entry)
            if tag in _TIFF_TAGS and kind in _TIFF_TYPES and number:
                layout = f"{order}{number}{_TIFF_TYPES[kind]}"
                inline = struct.calcsize(layout) <= 4
                at = entry + 8 if inline else struct.unpack_from(f"{order}I", data, entry + 8)[0]
                tags[tag] = entry, struct.unpack_from(layout, data, at)
        yield _TiffPage(offset, tags)
        (offset,) = struct.unpack_from(f"{order}I", data, end)


_TIFF_TAGS = {
    *(_REDUCED, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _STRIPS, _ORIENTATION, _SAMPLES),
    *(_STRIP_BYTES, _TILES, _TILE_BYTES, _EXTRA, _FORMAT),
}


def _check_tiff_samples(page: _TiffPage) -> None:
    """Refuse samples that OpenCV would convert in its own way, or that have no white."""
    bits, formats = set(page.values(_BITS, (1,))), set(page.values(_FORMAT, (1,)))
    if formats != {1} or bits not in ({8}, {16}):
        kind = "/".join(map(str, sorted(bits))) + (" unsigned" if formats == {1} else " other")
        raise UnreadableError(
            f"its TIFF samples have {kind} bits; save it with 8 or 16 unsigned bits"
        )
    if bits == {16} and (page.value(_PHOTOMETRIC, 1) > 2 or page.value(_SAMPLES, 1) == 2):
        raise UnreadableError(
            "its 16-bit TIFF samples are neither grey nor RGB(A); save it as grey"
        )


def _check_tiff_extent(page: _TiffPage, size: int) -> None:
    """Refuse a page whose strips or tiles lie beyond the file: OpenCV may show them as black."""
    for starts, lengths in ((_STRIPS, _STRIP_BYTES), (_TILES, _TILE_BYTES)):
        pairs = zip(page.values(starts, ()), page.values(lengths, ()), strict=False)
        if any(start + length > size for start, length in pairs):
            raise UnreadableError("its TIFF content is cut short")

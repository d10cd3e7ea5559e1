"""Whether a JPEG stream keeps to its grammar: some decoders end the process where it does not."""

import re
from collections.abc import Iterator

__all__ = ["is_whole_jpeg"]

_SOF, _DHT, _SOS, _DQT, _DRI, _EOI = 0xC3, 0xC4, 0xDA, 0xDB, 0xDD, 0xD9
_FRAMES = {0xC0, 0xC1, _SOF}  # baseline, extended, lossless; DICOM has no others
_COMMENTS = {*range(0xE0, 0xF0), 0xFE}

# What ends entropy-coded data: a marker that neither stands for 0xFF nor restarts.
_MARKER = re.compile(rb"\xff+(?![\x00\xff\xd0-\xd7])")


def is_whole_jpeg(stream: bytes) -> bool:
    """Tell whether all segments of a stream are well formed, from its start to its end marker.

    Entropy-coded data is not decoded: whether its bits make sense is left to the decoder.

    Args:
        stream: A JPEG stream, baseline, extended or lossless.
    """
    frame: tuple[int, bytes] | None = None
    tables: set[int] = set()
    scans = 0
    for code, content in _segments(stream):
        if code == _EOI:
            return scans > 0
        if code in _FRAMES and frame is None and _is_frame(content):
            frame = code, content
        elif code == _SOS and frame is not None and _is_scan(content, *frame, tables):
            scans += 1
        elif code == _DHT and (found := _huffman_tables(content)):
            tables |= found
        elif not _is_other(code, content):
            return False
    return False


def _segments(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, content) of segments until the first that is cut short, or the end marker."""
    at = 2
    while (match := _MARKER.match(stream, at)) and match.end() < len(stream):
        code, at = stream[match.end()], match.end() + 1
        if code == _EOI:
            yield code, b""
            return
        end = at + int.from_bytes(stream[at : at + 2], "big")
        if not at + 2 <= end <= len(stream):
            return
        yield code, stream[at + 2 : end]
        at = end
        if code == _SOS:
            following = _MARKER.search(stream, at)
            at = len(stream) if following is None else following.start()


def _is_frame(content: bytes) -> bool:
    """Tell whether a frame header has the components it announces, with possible sampling."""
    if len(content) < 6 or len(content) != 6 + 3 * content[5]:
        return False
    return all(1 <= byte >> 4 <= 4 and 1 <= byte & 15 <= 4 for byte in content[7::3])


def _is_scan(content: bytes, code: int, frame: bytes, tables: set[int]) -> bool:
    """Tell whether a scan header goes with the frame header and the Huffman tables before it."""
    if not content or len(content) != 4 + 2 * content[0]:
        return False
    components, selectors = content[1:-3:2], content[2:-3:2]
    if not components or not set(components) <= set(frame[6::3]):
        return False
    start, end, shift = content[-3:]
    if code == _SOF:  # predictor, nothing, point transform
        return 1 <= start <= 7 and shift < frame[0] and {each >> 4 for each in selectors} <= tables
    needed = {each >> 4 for each in selectors} | {16 + (each & 15) for each in selectors}
    return (start, end, shift) == (0, 63, 0) and needed <= tables


def _huffman_tables(content: bytes) -> set[int]:
    """Return the numbers of Huffman tables, from 16 on those of AC; none if one is impossible."""
    found, at = set(), 0
    while at < len(content):
        counts = content[at + 1 : at + 17]
        codes = sum(count << (16 - length) for length, count in enumerate(counts, 1))
        end = at + 17 + sum(counts)
        if content[at] & 0xEC or len(counts) < 16 or codes > 2**16 or end > len(content):
            return set()
        if content[at] < 16 and max(content[at + 17 : end], default=0) > 16:
            return set()
        found.add(content[at])
        at = end
    return found


def _is_other(code: int, content: bytes) -> bool:
    """Tell whether a segment is a comment, a restart interval or a table of quantisation."""
    if code == _DQT:
        return len(content) > 0 and (len(content) % 65 == 0 or len(content) % 129 == 0)
    return code in _COMMENTS or (code == _DRI and len(content) == 2)

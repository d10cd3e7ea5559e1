"""Files of DICOM taken apart and put together wrongly, for `dicom_fuzz.py` and the tests."""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.random import Generator
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.uid import DeflatedExplicitVRLittleEndian

CLAIMS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel")
IDENTIFIERS = (
    "PatientName", "PatientID", "PatientBirthDate", "InstitutionName", "ReferringPhysicianName",
    "AccessionNumber", "StudyInstanceUID",
)  # fmt: skip


# Files and where they can be hurt


@dataclass
class Subject:
    """A file taken apart.

    Attributes:
        name: Its name.
        head: Preamble and meta information.
        body: The elements after it, unfolded where they are deflated.
        deflated: Whether they are.
        lengths: Where in the whole, unfolded, the lengths of elements are, and their bytes.
        claims: What in the whole, unfolded, claims a size, and where: offsets and formats.
        pixels: Where in the whole, unfolded, the pixel data begin.
        order: "<" or ">".
        implicit: Whether elements lack their value representation.
        secrets: Texts of the header that nobody may quote.
    """

    name: str
    head: bytes
    body: bytes
    deflated: bool
    lengths: list[tuple[int, int]] = field(default_factory=list)
    claims: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    pixels: int = 0
    order: str = "<"
    implicit: bool = False
    secrets: list[bytes] = field(default_factory=list)

    @property
    def whole(self) -> bytes:
        """The file, unfolded."""
        return self.head + self.body

    def pack(self, whole: bytes) -> bytes:
        """Return an unfolded file as it is stored."""
        if not self.deflated:
            return whole
        folder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        start = len(self.head)
        return whole[:start] + folder.compress(whole[start:]) + folder.flush()


def take_apart(path: Path) -> Subject:
    """Return a file's parts, found by pydicom."""
    data = path.read_bytes()
    header = dcmread(path, force=True)
    stream = BytesIO(data)
    read_preamble(stream, force=True)
    read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
    start = stream.tell()
    deflated = header.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
    body = zlib.decompress(data[start:], -zlib.MAX_WBITS) if deflated else data[start:]
    subject = Subject(path.name, data[:start], body, deflated)
    subject.implicit, little = header.original_encoding
    subject.order = "<" if little else ">"
    shift = start if deflated else 0
    for tag in list(header._dict):
        element = header.get_item(tag)
        if not isinstance(element, RawDataElement):
            continue
        short = not subject.implicit and element.VR not in (
            "OB", "OD", "OF", "OL", "OW", "SQ", "UC", "UN", "UR", "UT",
        )  # fmt: skip
        at = element.value_tell + shift
        subject.lengths.append((at - (2 if short else 4), 2 if short else 4))
        if header[tag].keyword in CLAIMS:
            subject.claims[header[tag].keyword] = [(at, subject.order + "H")]
        if tag.group == 0x7FE0:
            subject.pixels = at
    subject.pixels = subject.pixels or len(subject.whole) // 2
    subject.secrets = [
        str(header.get(name)).encode() for name in IDENTIFIERS if len(str(header.get(name, ""))) > 5
    ]
    for name, place in claims_of_stream(subject.whole, subject.pixels).items():
        subject.claims.setdefault(name, []).append(place)
    return subject


def claims_of_stream(whole: bytes, start: int) -> dict[str, tuple[int, str]]:
    """Return what the first compressed frame claims, and where."""
    frame = whole.find(b"\xff\x4f\xff\x51", start)
    if frame >= 0:  # JPEG 2000
        places = {"Columns": 8, "Rows": 12, "left": 16, "top": 20, "tile width": 24}
        claims = {name: (frame + at, ">I") for name, at in places.items()}
        return claims | {"tile height": (frame + 28, ">I"), "SamplesPerPixel": (frame + 40, ">H")}
    for marker in (0xC0, 0xC1, 0xC3, 0xF7):  # JPEG
        frame = whole.find(bytes([0xFF, marker, 0]), start)
        if frame >= 0:
            places = {"BitsStored": 4, "SamplesPerPixel": 9, "sampling": 11}
            claims = {name: (frame + at, ">B") for name, at in places.items()}
            return claims | {"Rows": (frame + 5, ">H"), "Columns": (frame + 7, ">H")}
    return {}


# Mutations: each returns a changed copy of the file


def truncation(subject: Subject, rng: Generator) -> bytes:
    """Cut the file short."""
    data = subject.pack(subject.whole)
    return data[: rng.integers(1, len(data))]


def header_bits(subject: Subject, rng: Generator) -> bytes:
    """Flip up to eight bits before the pixel data."""
    return subject.pack(flipped(subject.whole, 0, subject.pixels, rng))


def pixel_bits(subject: Subject, rng: Generator) -> bytes:
    """Flip up to eight bits of the pixel data as they are stored, half of the time early on."""
    data = subject.pack(subject.whole)
    start = min(len(subject.head) if subject.deflated else subject.pixels, len(data) - 2)
    stop = min(len(data), start + 200) if rng.random() < 0.5 else len(data)
    return flipped(data, start, stop, rng)


def insertion(subject: Subject, rng: Generator) -> bytes:
    """Put up to 32 random bytes in, half of the time into the header."""
    whole, at = subject.whole, place(subject, rng)
    return subject.pack(whole[:at] + rng.bytes(rng.integers(1, 33)) + whole[at:])


def deletion(subject: Subject, rng: Generator) -> bytes:
    """Take up to 32 bytes out, half of the time of the header."""
    whole, at = subject.whole, place(subject, rng)
    return subject.pack(whole[:at] + whole[at + rng.integers(1, 33) :])


def wrong_lengths(subject: Subject, rng: Generator) -> bytes:
    """Make up to three elements claim another length."""
    if not subject.lengths:
        return truncation(subject, rng)
    whole = bytearray(subject.whole)
    for _ in range(rng.integers(1, 4)):
        at, width = subject.lengths[rng.integers(len(subject.lengths))]
        top = 256**width - 1
        length = int(rng.choice([0, 1, 2, 7, top // 2, top - 1, top, rng.integers(top)]))
        whole[at : at + width] = struct.pack(subject.order + {2: "H", 4: "I"}[width], length)
    return subject.pack(bytes(whole))


def huge_claims(subject: Subject, rng: Generator) -> bytes:
    """Make up to four numbers of the image's size huge or odd, mostly in header and stream."""
    whole = bytearray(subject.whole)
    names = list(subject.claims)
    for name in rng.choice(names, min(len(names), rng.integers(1, 5)), replace=False):
        claim = int(rng.choice([0, 1, 3, 32, 4096, 8192, 32767, 65528, 65535]))
        for at, form in subject.claims[name][: 1 if rng.random() < 0.2 else None]:
            top = 256 ** struct.calcsize(form) - 1
            struct.pack_into(form, whole, at, min(claim, top))
    return subject.pack(bytes(whole))


def nested_sequences(subject: Subject, rng: Generator) -> bytes:
    """Put sequences before the elements, nested thousands deep."""
    depth = many(rng, 500, 20_000)
    opened = element(subject, 0x0008, 0x1140, b"SQ", 2**32 - 1) + item(subject, 2**32 - 1)
    closed = struct.pack(subject.order + "HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    kind = rng.integers(3)
    nest = opened * depth + closed * depth * int(kind > 0)
    if kind == 2:  # of known lengths
        step, nest = len(opened), b""
        for level in range(depth):
            nest += element(subject, 0x0008, 0x1140, b"SQ", 8 + step * (depth - level - 1))
            nest += item(subject, step * (depth - level - 1))
    return subject.pack(subject.head + nest + subject.body)


def many_elements(subject: Subject, rng: Generator) -> bytes:
    """Put up to a million empty elements, or items, before the others."""
    count = many(rng, 1000, 1_000_000)
    if rng.random() < 0.5:
        flood = element(subject, 0x0008, 0x0060, b"CS", 0) * count
    else:
        flood = element(subject, 0x0008, 0x1140, b"SQ", 2**32 - 1) + item(subject, 0) * count
        flood += struct.pack(subject.order + "HHI", 0xFFFE, 0xE0DD, 0)
    return subject.pack(subject.head + flood + subject.body)


def other_syntax(subject: Subject, rng: Generator) -> bytes:
    """Give the file the transfer syntax of another, deflated and big endian included."""
    head = subject.head
    at = head.find(b"\x02\0\x10\0UI")
    if at < 0:
        return flipped(subject.whole, 0, len(subject.whole), rng)
    length = int.from_bytes(head[at + 6 : at + 8], "little")
    name = str(rng.choice([str(uid) for uid in _PIXEL_DATA_DECODERS])).encode()
    name += b"\0" * (len(name) % 2)
    new = head[: at + 6] + struct.pack("<H", len(name)) + name + head[at + 8 + length :]
    return subject.pack(new + subject.body) if not subject.deflated else new + subject.body


def many(rng: Generator, low: int, high: int) -> int:
    """Return a number of any size between two."""
    return int(np.exp(rng.uniform(np.log(low), np.log(high))))


def place(subject: Subject, rng: Generator) -> int:
    """Return a place in the header, or anywhere."""
    return int(rng.integers(subject.pixels if rng.random() < 0.5 else len(subject.whole)))


def flipped(data: bytes, start: int, stop: int, rng: Generator) -> bytes:
    """Return a copy with up to eight bits flipped."""
    copy = bytearray(data)
    for at in rng.integers(start, stop, rng.integers(1, 9)):
        copy[at] ^= 1 << rng.integers(8)
    return bytes(copy)


def element(subject: Subject, group: int, number: int, kind: bytes, length: int) -> bytes:
    """Return the beginning of an element."""
    tag = struct.pack(subject.order + "HH", group, number)
    if subject.implicit:
        return tag + struct.pack("<I", length)
    if kind == b"SQ":
        return tag + kind + b"\0\0" + struct.pack(subject.order + "I", length)
    return tag + kind + struct.pack(subject.order + "H", length)


def item(subject: Subject, length: int) -> bytes:
    """Return the beginning of an item of a sequence."""
    return struct.pack(subject.order + "HHI", 0xFFFE, 0xE000, length)


def untouched(subject: Subject, rng: Generator) -> bytes:
    """Leave the file as it is."""
    return subject.pack(subject.whole)


MUTATIONS: dict[str, Callable[[Subject, Generator], bytes]] = {
    mutation.__name__.replace("_", " "): mutation
    for mutation in (
        truncation, header_bits, pixel_bits, insertion, deletion, wrong_lengths, huge_claims,
        nested_sequences, many_elements, other_syntax,
    )
}  # fmt: skip


def cases(subjects: list[Subject], mutations: int, seed: int) -> Iterator[tuple[str, str, bytes]]:
    """Yield (kind, file, content): every file as it is, and then mutations of all kinds in turn."""
    for subject in subjects:
        yield "untouched", subject.name, untouched(subject, np.random.default_rng(0))
    kinds = list(MUTATIONS)
    for number in range(mutations):
        rng = np.random.default_rng((seed, number))
        kind = kinds[number % len(kinds)]
        subject = subjects[rng.integers(len(subjects))]
        yield kind, subject.name, MUTATIONS[kind](subject, rng)

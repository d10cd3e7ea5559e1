"""What becomes of damaged and hostile DICOM files: an image, or the one read error.

    python benchmarks/dicom_fuzz.py DATA [--mutations 4000 --seed 0 --workers 2]

Every file below DATA that ends in .dcm is read as it is, and then in mutations: cut short, with
bits flipped in the header or in the pixel data, with bytes put in or taken out, with wrong lengths
and huge claims, with thousands of nested or tiny elements, and with another transfer syntax. Each
is read by `cxrssl.data.read_image` in another process, which is watched for its time and memory.
Anything but an image or an `ImageReadError` that quotes nothing of the header is wrong, and makes
the exit code 1.
"""

import argparse
import collections
import multiprocessing
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from numpy.random import Generator
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cxrssl.data import ImageReadError, read_image

OUTCOMES = ("read", "refused", "other exception", "not an image", "hang", "crash", "memory", "leak")
WRONG = OUTCOMES[2:]
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
    depth = int(rng.integers(500, 20000))
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
    count = int(rng.integers(1000, 1_000_000))
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


# Reading, in processes that may die


def serve(pipe: Connection, secrets: list[bytes], spoken: str, limit: int) -> None:
    """Read the files whose paths arrive, and send back (outcome, seconds, bytes, detail).

    Seconds are of processor time: on a busy machine those of the clock say little. A file that
    takes more than the limit ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(spoken, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)
    # Far beyond what is watched, so that an allocation that nobody touches is noticed as well.
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + 2**34, resource.RLIM_INFINITY))
    while path := pipe.recv():
        before, started = peak(), time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(started) + 1 + limit, resource.RLIM_INFINITY))
        try:
            pixels = read_image(path, frame=0).pixels
            good = pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.size
            outcome, detail = ("read", "") if good else ("not an image", repr(pixels))
        except ImageReadError as error:
            outcome, detail = "refused", error.cause
            if "MemoryError" in detail:
                outcome = "memory"
            if any(secret in detail.encode() for secret in secrets):
                outcome = "leak"
        except BaseException as error:
            outcome, detail = "other exception", repr(error)
        pipe.send((outcome, time.process_time() - started, peak() - before, detail))


def address_space() -> int:
    """Return the bytes of address space in use."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def peak() -> int:
    """Return the most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass
class Case:
    """A mutation that is being read."""

    kind: str
    subject: str
    path: Path
    deadline: float


class Worker:
    """A process that reads, begun anew when it dies.

    Args:
        folder: Where its files are.
        number: Which worker it is.
        secrets: What nobody may quote.
        seconds: What a file may take.
    """

    def __init__(self, folder: Path, number: int, secrets: list[bytes], seconds: int) -> None:
        self.path = folder / f"{number}.dcm"
        self.spoken = folder / f"{number}.txt"
        self.secrets = secrets
        self.seconds = seconds
        self.case: Case | None = None
        self.process: BaseProcess
        self.begin()

    def begin(self) -> None:
        """Start the process."""
        context = multiprocessing.get_context("fork")  # imports take longer than most files
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, self.secrets, str(self.spoken), self.seconds)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def read(self, kind: str, subject: str, data: bytes) -> None:
        """Have a file read."""
        self.path.write_bytes(data)
        self.case = Case(kind, subject, self.path, time.monotonic() + 20 * self.seconds)
        self.pipe.send(str(self.path))

    def answer(self, limit: int) -> tuple[str, float, int, str] | None:
        """Return how it went, None while it goes on; a hang or crash begins the process anew."""
        assert self.case is not None
        if self.pipe.poll():
            try:
                outcome, seconds, grown, detail = self.pipe.recv()
            except EOFError:
                self.process.join()
                code = self.process.exitcode
                self.begin()
                return "hang" if code == -signal.SIGXCPU else "crash", 0.0, 0, f"exit code {code}"
            if grown > limit:
                outcome, detail = "memory", f"{grown / 2**20:.0f} MiB"
            if outcome == "memory" or grown > limit // 4:  # the peak of a process never falls
                self.end()
                self.begin()
            return outcome, seconds, grown, detail
        if time.monotonic() < self.case.deadline:
            return None
        self.end()
        self.begin()
        return "hang", 0.0, 0, "too long"

    def end(self) -> None:
        """Stop the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def has_spoken_of(self, secrets: list[bytes]) -> bool:
        """Tell whether what it printed quotes a header."""
        printed = self.spoken.read_bytes() if self.spoken.exists() else b""
        return any(secret in printed for secret in secrets)


# The whole


@dataclass
class Tally:
    """What has become of the mutations so far."""

    outcomes: dict[str, collections.Counter[str]] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")
    wrong: list[str] = field(default_factory=list)

    def note(self, case: Case, answer: tuple[str, float, int, str], keep: Path | None) -> None:
        """Count an answer, and keep the file of a wrong one."""
        outcome, seconds, grown, detail = answer
        name = f"{case.kind} of {case.subject}"
        self.outcomes.setdefault(case.kind, collections.Counter())[outcome] += 1
        self.slowest = max(self.slowest, (seconds, name))
        self.largest = max(self.largest, (grown, name))
        if outcome in WRONG:
            self.wrong.append(f"{outcome}: {name}: {detail}")
            if keep is not None:
                kept = keep / f"{len(self.wrong)}-{outcome.replace(' ', '-')}.dcm"
                kept.write_bytes(case.path.read_bytes())

    def table(self) -> str:
        """Return the outcomes as a Markdown table."""
        rows = [["mutation", "tried", *OUTCOMES], ["---"] * (len(OUTCOMES) + 2)]
        total: collections.Counter[str] = collections.Counter()
        for kind, counts in self.outcomes.items():
            rows.append([kind, str(counts.total()), *(str(counts[name]) for name in OUTCOMES)])
            total += counts
        rows.append(["all", str(total.total()), *(str(total[name]) for name in OUTCOMES)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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


def fuzz(subjects: list[Subject], folder: Path, options: argparse.Namespace) -> Tally:
    """Return what became of all mutations."""
    secrets = sorted({secret for subject in subjects for secret in subject.secrets})
    tally = Tally()
    todo = cases(subjects, options.mutations, options.seed)
    workers = [
        Worker(folder, number, secrets, options.timeout) for number in range(options.workers)
    ]
    busy = [worker for worker in workers if give(worker, todo)]
    while busy:
        wait([worker.pipe for worker in busy], timeout=0.2)
        for worker in list(busy):
            answer = worker.answer(options.memory * 2**20)
            if answer is None:
                continue
            assert worker.case is not None
            tally.note(worker.case, answer, options.keep)
            if not give(worker, todo):
                busy.remove(worker)
    for worker in workers:
        if worker.has_spoken_of(secrets):
            tally.wrong.append("leak: a header was quoted on standard output or error")
        worker.end()
    return tally


def give(worker: Worker, todo: Iterator[tuple[str, str, bytes]]) -> bool:
    """Give a worker its next case; tell whether there was one."""
    for case in todo:
        worker.read(*case)
        return True
    return False


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of DICOM files")
    parser.add_argument("--mutations", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=int, default=20, help="seconds a file may take")
    parser.add_argument("--memory", type=int, default=1024, help="MiB a file may take")
    parser.add_argument("--keep", type=Path, help="folder for files that go wrong")
    return parser.parse_args()


def main() -> int:
    """Fuzz, print, and return the exit code."""
    warnings.simplefilter("ignore")
    options = parse()
    paths = sorted(options.data.rglob("*.dcm"))
    if not paths:
        print(f"no .dcm file below {options.data}", file=sys.stderr)
        return 2
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = fuzz([take_apart(path) for path in paths], Path(folder), options)
    print(tally.table())
    print(f"\nSlowest: {tally.slowest[0]:.2f} s, {tally.slowest[1]}.")
    print(f"Largest: {tally.largest[0] / 2**20:.0f} MiB, {tally.largest[1]}.")
    print(f"{len(paths)} files, seed {options.seed}, {time.perf_counter() - started:.0f} s.")
    for line in tally.wrong:
        print(f"WRONG: {line}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

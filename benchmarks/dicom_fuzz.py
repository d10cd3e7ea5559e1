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
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from dicom_mutations import Subject, cases, take_apart

from cxrssl.data import ImageReadError, read_image

OUTCOMES = ("read", "refused", "other exception", "not an image", "hang", "crash", "memory", "leak")
WRONG = OUTCOMES[2:]


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

"""Time until the command says something, over that of importing torch.

    python benchmarks/start_up.py [--rounds 10]

Each is a process of its own, in turns; on a CPU its processor time is counted.
"""

import argparse
import resource
import statistics
import subprocess
import sys

COMMANDS = {
    "import torch": ["-c", "import torch"],
    "cxrssl --help": ["-m", "cxrssl", "--help"],
    "cxrssl --version": ["-m", "cxrssl", "--version"],
    "cxrssl fit --help": ["-m", "cxrssl", "fit", "--help"],
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, words in COMMANDS.items():
            seconds = time_of(words)
            if number:  # the first round reads the files
                times[name].append(seconds)
    print("| command | s, median | ratio |\n|---|---|---|")
    for name, values in times.items():
        pairs = zip(values, times["import torch"], strict=True)
        ratio = statistics.median(value / reference for value, reference in pairs)
        print(f"| `{name}` | {statistics.median(values):.2f} | {ratio:.2f} |")


def time_of(words: list[str]) -> float:
    """Return the processor time that Python takes with some words, in seconds."""
    before = _children()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return _children() - before


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

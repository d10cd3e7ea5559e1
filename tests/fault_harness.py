"""Runs of the command that are hurt in every way there is, gone on from, and compared.

``python -m tests.fault_harness --kills 100 --seed 0`` prints the table of benchmarks/README.md.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import yaml

from tests.nursery import PATIENCE, Nursery
from tests.runs import config, losses

SLURM = {"SLURM_JOB_ID": "12345", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train"}
SLURM |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "node"}
KILLS = ("checkpoint", "rename", "renamed", "encoder", "link", "table")
"""Places inside of the process at which it is killed, see :mod:`tests.faults`."""


class Run:
    """A small run of the command, with a checkpoint after every step.

    Args:
        nursery: Starts it.
        folder: Its run folder.
        workers: Loader processes.
        accumulate: Micro-batches in a step.
        flags: Of every start.
    """

    def __init__(self, nursery, folder, workers=0, accumulate=1, flags=()):
        self.nursery, self.folder = nursery, Path(folder)
        path = config(self.folder, workers, accumulate, checkpoints=False)
        settings = yaml.safe_load(path.read_text())
        often, rarely = {"every": "0:00:00"}, {"every_n_steps": 10**6, "at_start": False}
        settings["trainer"]["callbacks"] = [
            {"class_path": "RecentCheckpoint", "init_args": often},
            {"class_path": "OnlineProbe", "init_args": rarely},
        ]
        path.write_text(yaml.safe_dump(settings))
        self.arguments = ["fit", f"--config={path}", "--ckpt_path=last", *flags]
        self.log, self.pid, self.gaps = self.folder / "log", None, set()

    def start(self, fault=None, environment=None):
        """Start it or go on; ``fault`` is a name and a number, see :mod:`tests.faults`."""
        self.pid = self.nursery.start(
            arguments=self.arguments,
            fault=fault,
            environment=environment or {},
            log=str(self.log),
        )

    def end(self):
        """Wait for the end; return the exit code and what was said."""
        code = self.nursery.code()
        self.gaps.add(self.saved() - 1)
        return code, self.log.read_text()

    def fit(self, *arguments):
        """Run until it ends by itself."""
        self.start(*arguments)
        return self.end()

    def wait_for(self, step):
        """Wait until a step has been logged, or the run has ended."""
        deadline = time.monotonic() + PATIENCE
        while self.nursery.running(0.01) and max(self.logged(), default=-1) < step:
            assert time.monotonic() < deadline

    def kill(self, number, everyone=False):
        """Send a signal to the process, or to its workers too."""
        for pid in members(self.pid) if everyone else [self.pid]:
            os.kill(pid, number)

    def logged(self):
        """Return what was logged of each step by any of the starts; refuse two that differ."""
        result = {}
        for folder in self.folder.glob("version_*"):
            if (folder / "metrics.csv").exists():
                for step, values in losses(folder).items():
                    earlier = result.setdefault(step, {})
                    for name, value in values.items():
                        assert earlier.setdefault(name, value) == value, (folder, step, name)
        return result

    def checkpoints(self):
        """Return all checkpoints by the steps in them; raises where one is broken."""
        files = [path for path in self.folder.glob("version_*/checkpoints/*.ckpt") if path.exists()]
        return {torch.load(path, weights_only=True)["global_step"]: path for path in files}

    def saved(self):
        """Return the steps in the newest checkpoint, 0 without one."""
        return max(self.checkpoints(), default=0)

    def equals(self, whole):
        """Return whether it logged and ended with what the run did that was left alone.

        Of a step that ended with a kill the checkpoint may be there and the line not yet.
        """
        logged, expected = self.logged(), whole.logged()
        lines = all(logged.get(step, v) == v for step, v in expected.items())
        complete = set(expected) - set(logged) <= self.gaps
        ends = [run.checkpoints()[run.saved()] for run in (self, whole)]
        states = [torch.load(path, weights_only=True) for path in ends]
        kept = ("state_dict", "optimizer_states", "cxrssl_run")
        return lines and complete and all(same_values(*(s[k] for s in states)) for k in kept)

    def orphans(self, seconds=15):
        """Return the processes of its last start that are still there after some time."""
        deadline = time.monotonic() + seconds
        while (alive := members(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return alive


def same_values(first, second):
    """Return whether two nested values are equal, bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same_values(first[key], second[key]) for key in first
        )
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same_values, first, second))
    return first == second


def members(session, parent=None):
    """Return the living processes of a session, or only the children of one of them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue  # has just ended
        if int(own) == session and state not in "ZX" and parent in (None, int(ppid)):
            found.append(int(stat.parent.name))
    return found


def scontrol(folder):
    """Put a stand-in for SLURM's command into a folder; return the environment that finds it."""
    path = folder / "scontrol"
    path.write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol.calls\n')
    path.chmod(0o755)
    return SLURM | {"PATH": f"{folder}:{os.environ['PATH']}"}


def hurt(run, kind, rng):
    """Start a run, let a fault happen, and return the exit code and what was said."""
    if kind in (*KILLS, "full"):
        rare = kind in ("link", "table")  # at the end of an epoch, and at the first lines
        return run.fit((kind, int(rng.integers(1, 3 if rare else 7))))
    run.start(environment=scontrol(run.folder) if kind == "SIGUSR1" else None)
    early = kind == "SIGKILL" and rng.random() < 0.2
    if not early:
        run.wait_for(run.saved() + int(rng.integers(0, 3)))
    time.sleep(rng.uniform(0, 4 if early else 0.5))
    if kind == "worker":
        victims = members(run.pid, parent=run.pid)
        if victims:
            os.kill(int(rng.choice(victims)), signal.SIGKILL)
    else:
        run.kill(getattr(signal, kind), everyone=kind != "SIGKILL")
    return run.end()


EXPECTED = {"full": 1, "SIGTERM": 1, "SIGINT": 1, "SIGUSR1": 1, "worker": 1}
"""Exit codes; of every other kind that of SIGKILL."""


def campaign(nursery, folder, kills, rng, kinds, steps):
    """Hurt runs as often as asked for, and count what became of them.

    Returns:
        For each kind how often it happened (``times``), had effect before the run's end
        (``survived``), lost a checkpoint (``lost``), left processes (``orphans``); and under
        ``runs`` how many runs came to their end and how many of those were equal.
    """
    flags = [f"--trainer.max_steps={steps}"]
    whole = Run(nursery, folder / "whole", flags=flags)
    assert whole.fit()[0] == 0, whole.log.read_text()
    table = {kind: Counter() for kind in kinds}
    runs = Counter()
    done = 0
    while done < kills:
        run = Run(nursery, folder / f"run_{runs['all']}", workers=2, flags=flags)
        seen = []
        while done < kills and run.saved() < steps - 1:
            kind = str(rng.choice(kinds))
            before = run.saved()
            code, text = hurt(run, kind, rng)
            if code == 0:
                break
            assert code == EXPECTED.get(kind, -signal.SIGKILL), (kind, code, text)
            table[kind]["times"] += 1
            table[kind]["lost"] += run.saved() < before
            table[kind]["orphans"] += len(run.orphans())
            seen.append(kind)
            done += 1
            print(f"{run.folder.name} {kind}: {before} to {run.saved()}", file=sys.stderr)
        code, text = run.fit()
        assert code == 0, text
        equal = run.equals(whole)
        runs.update(all=1, equal=int(equal))
        for kind in seen:
            table[kind]["equal"] += equal
    return table, runs


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of the runs; a temporary one by default")
    arguments = parser.parse_args()
    kinds = ["SIGKILL", *KILLS, "full", "worker", "SIGTERM", "SIGINT", "SIGUSR1"]
    rng = np.random.default_rng(arguments.seed)
    folder = arguments.folder or Path(tempfile.mkdtemp())
    with Nursery() as nursery:
        table, runs = campaign(nursery, folder, arguments.kills, rng, kinds, arguments.steps)
    print("| fault | times | run went on and was equal | checkpoints lost | orphans |")
    print("|---|---|---|---|---|")
    for kind, row in table.items():
        print(f"| {kind} | {row['times']} | {row['equal']} | {row['lost']} | {row['orphans']} |")
    print(f"{runs['all']} runs, {runs['equal']} of them equal to the one left alone")


if __name__ == "__main__":
    main()

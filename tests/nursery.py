"""Commands in fresh processes that have imported everything already.

What takes seconds in each start of the command is done once, in a process that forks.
"""

import importlib.util
import json
import os
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 300
"""Seconds after which a process that should have ended counts as hanging."""


class Nursery:
    """Starts commands in fresh processes that have imported everything already."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def start(self, **request):
        """Start a command and return the number of its process, which leads a session."""
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def running(self, seconds=0.0):
        """Wait for some time, and return whether the command is still running."""
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def code(self):
        """Wait for the end of the command and return its exit code."""
        assert not self.running(PATIENCE), "the command hangs"
        return int(self.process.stdout.readline())


def serve():
    """Fork a process for each request on the standard input, and say how it ended."""
    import tensorboard  # noqa: F401

    import cxrssl.cli  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            give_birth(**json.loads(line))
        say(pid)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def say(number):
    """Tell the process that asked."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def give_birth(arguments, fault, environment, log):
    """Become the command."""
    from cxrssl.__main__ import main
    from tests.faults import install

    os.setsid()
    # Lightning starts further ranks with the words and the module of the first.
    sys.argv[1:] = arguments
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("cxrssl.__main__")
    os.environ.update(environment)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        if fault is not None:
            install(*fault)
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()

"""Faults on purpose: a callback, and ``python -m tests.faults NAME:NUMBER COMMAND ...``.

The second runs the command with something patched that goes wrong the n-th time it is called.
"""

import csv
import errno
import io
import os
import signal
import sys

from lightning.pytorch.callbacks import Callback


class KillAt(Callback):
    """Kills the process, without any clean-up, at the end of a batch of the given step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            die()


def die():
    """End the process as the kernel does that is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number, function, fault):
    """Return a function that calls ``fault(*arguments)`` instead the n-th time."""
    calls = []

    def patched(*arguments, **options):
        calls.append(None)
        return (fault if len(calls) == number else function)(*arguments, **options)

    return patched


def half(save):
    """Return a function that writes half of what ``save(content, file)`` would, and dies."""

    def halved(content, file, *arguments, **options):
        put_half(save, content, file)
        die()

    return halved


def put_half(save, content, file):
    """Write the first half of what is to be saved."""
    whole = io.BytesIO()
    save(content, whole)
    file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
    file.flush()
    os.fsync(file.fileno())


def full(save):
    """Return a function that finds the disk full half-way."""

    def halved(content, file, *arguments, **options):
        put_half(save, content, file)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return halved


def half_encoder(weights, path, metadata):
    """Write half an encoder's file and die."""
    from safetensors.torch import save

    content = save(weights, metadata)
    path.write_bytes(content[: len(content) // 2])
    die()


def dies(*arguments, **options):
    """Die before the call."""
    die()


def dies_after(function):
    """Return a function that dies after the call."""

    def called(*arguments, **options):
        function(*arguments, **options)
        die()

    return called


def install(name, number):
    """Patch what is to go wrong."""
    import torch

    from cxrssl.callbacks import encoder_file

    places = {
        "checkpoint": (torch, "save", half(torch.save)),
        "full": (torch, "save", full(torch.save)),
        "rename": (os, "replace", dies),
        "renamed": (os, "replace", dies_after(os.replace)),
        "link": (os, "symlink", dies),
        "encoder": (encoder_file, "save_file", half_encoder),
        "table": (csv.DictWriter, "writeheader", dies_after(csv.DictWriter.writeheader)),
    }
    owner, attribute, fault = places[name]
    setattr(owner, attribute, at_call(number, getattr(owner, attribute), fault))


if __name__ == "__main__":
    from cxrssl.__main__ import main

    fault, count = sys.argv[1].split(":")
    install(fault, int(count))
    sys.exit(main(sys.argv[2:]))

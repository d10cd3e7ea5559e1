"""Work on all cores, with a bar of its progress."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import cv2
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

__all__ = ["Work", "in_parallel"]

T = TypeVar("T")
Work = Callable[[int, Callable[[], None]], T]
"""Does a task, and calls its second argument after every image."""

_PAUSE = 0.2


def in_parallel(
    work: Work[T], tasks: Sequence[int], processes: int, *, images: int, title: str
) -> Generator[T]:
    """Yield the results of tasks as they end, in any order.

    Where the loop over them ends early, tasks stop after their next image.

    Args:
        work: Does a task; it can be pickled.
        tasks: The tasks.
        processes: Processes that work; 1 works in this one.
        images: Images in all tasks.
        title: What the bar says is being done.

    Raises:
        RuntimeError: If a process was killed.
    """
    # No bar in a log file.
    with Tqdm(total=images, desc=title, unit="image", disable=None, leave=False) as bar:
        if processes == 1 or len(tasks) < 2:
            for task in tasks:
                yield work(task, bar.update)
        else:
            yield from _in_processes(work, tasks, min(processes, len(tasks)), bar)


def _in_processes(work: Work[T], tasks: Sequence[int], processes: int, bar: Any) -> Generator[T]:
    # Forked processes share the index, and need not import everything again.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    state = _State(work, context)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # for the reason that `cxrssl.data.loader` gives
    pool = ProcessPoolExecutor(processes, context, initializer=_start, initargs=(state,))
    try:
        waiting = {pool.submit(_do, task) for task in tasks}
        while waiting:
            ended, waiting = wait(waiting, timeout=_PAUSE, return_when=FIRST_COMPLETED)
            bar.update(state.done.value - bar.n)
            for future in ended:
                yield future.result()
    except BrokenProcessPool:
        raise RuntimeError(
            "a process was killed, perhaps for want of memory: run the same command again with "
            "fewer --workers; what is finished is kept"
        ) from None
    finally:
        state.stop.set()
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


class _State:
    """What all processes share.

    Args:
        work: Does a task.
        context: How processes are started.
    """

    def __init__(self, work: Work[Any], context: BaseContext) -> None:
        self.work = work
        self.done: Any = context.Value("q", 0)
        self.stop = context.Event()

    def after_image(self) -> None:
        """Count an image, and give up if nobody waits for more."""
        with self.done.get_lock():
            self.done.value += 1
        if self.stop.is_set():
            raise _StoppedError


class _StoppedError(Exception):
    """Nobody waits for the task any more."""


_states: list[_State] = []


def _start(state: _State) -> None:
    """Make a process ready to work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is told, and stops the others
    cv2.setNumThreads(1)
    _states[:] = [state]


def _do(task: int) -> Any:
    state = _states[0]
    return state.work(task, state.after_image)

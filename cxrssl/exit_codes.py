"""How a command ends.

With 0 when done, with 2 and one sentence for what is the user's to mend, with 1 and one sentence
where a run cannot go on but the same command may later.
"""

import errno
import re
import sys
from collections.abc import Callable, Iterator

from jsonargparse import ArgumentError

from cxrssl.errors import FailedRunError, InputError
from cxrssl.lost_process import leave_at_once, lost_process

__all__ = ["exit_code"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOST_WORKER = re.compile(
    r"DataLoader worker \(pid\S* [\d, ]+\) (exited unexpectedly|is killed by signal: [^.]*)"
)
_GO_ON = "then the same command with --ckpt_path last goes on"


def exit_code(action: Callable[[], object]) -> int:
    """Run an action and return the command's exit code; other errors than the user's are raised."""
    try:
        action()
    except ArgumentError as error:
        sys.stderr.write(f"cxrssl: error: {_in_one_sentence(str(error))}\n")
        return 2
    except Exception as error:
        code, reason = _explain(error)
        if reason is None:
            raise
        sys.stderr.write(f"cxrssl: error: {reason}\n")
        if code == 1 and any(map(lost_process, _chain(error))):
            leave_at_once()
        return code
    return 0


def _in_one_sentence(text: str) -> str:
    """Return a parser's nested explanation without what repeats the input or the types."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    repeated = (
        "Does not validate",
        "Subtypes:",
        "Errors:",
        "Given value",
        "Expected a <class 'None",
    )
    return " ".join(line for line in lines if line and not line.startswith(repeated))


def _explain(error: BaseException) -> tuple[int, str | None]:
    """Return the exit code of an exception and its sentence, None where it needs a traceback."""
    errors = list(_chain(error))
    for cause in errors:
        if isinstance(cause, InputError):
            return 2, str(cause)
    for cause in errors:
        if reason := _failure(cause):
            return 1, reason
    return 1, None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those behind it, such as one that the parser has wrapped."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _failure(error: BaseException) -> str | None:
    """Return why a run could not go on, where that is known."""
    if isinstance(error, FailedRunError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" for {error.filename}" if error.filename else ""
        return f"there is no space left{where} ({error.strerror}): make room, {_GO_ON}"
    if isinstance(error, RuntimeError) and (found := _LOST_WORKER.search(str(error))):
        return (
            f"{found[0]}: most often because the memory was used up; set data.num_workers or "
            f"data.batch_size lower, or ask for more memory, {_GO_ON}"
        )
    return lost_process(error)

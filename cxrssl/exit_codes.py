"""How a command ends: 0 when done, 2 with one sentence for what is the user's to mend.

One whose other process was lost ends with 1 and one sentence.
"""

import sys
from collections.abc import Callable

from jsonargparse import ArgumentError

from cxrssl.errors import InputError
from cxrssl.lost_process import leave_at_once, lost_process

__all__ = ["exit_code"]


def exit_code(action: Callable[[], object]) -> int:
    """Run an action and return the command's exit code; other errors than the user's are raised."""
    try:
        action()
    except ArgumentError as error:
        sys.stderr.write(f"cxrssl: error: {_in_one_sentence(str(error))}\n")
        return 2
    except Exception as error:
        reason, lost = _input_error(error), lost_process(error)
        if reason is None and lost is None:
            raise
        sys.stderr.write(f"cxrssl: error: {reason or lost}\n")
        if reason is not None:
            return 2
        leave_at_once()
        return 1
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


def _input_error(error: BaseException | None) -> InputError | None:
    """Return the user's error behind an exception, such as one that the parser has wrapped."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error

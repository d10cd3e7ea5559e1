"""Errors that end a command with one sentence instead of a traceback."""

__all__ = ["FailedRunError", "InputError"]


class InputError(ValueError):
    """What the user gave cannot be used. The message says what, where, and what to do.

    The command exits with 2.
    """


class FailedRunError(RuntimeError):
    """A run ended before its time. The message says why, and how to go on.

    The command exits with 1.
    """

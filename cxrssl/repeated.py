"""Flags of a command that may be given more than once."""

from collections.abc import Iterable

__all__ = ["appending"]


def appending(arguments: Iterable[str], *flags: str) -> list[str]:
    """Return arguments such that a repeated one of some flags adds to those before it.

    The parser would take the last one alone.
    """

    def mark(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        return f"{flag}+{equals}{value}" if flag in flags else argument

    return [mark(argument) for argument in arguments]

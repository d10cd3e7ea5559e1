"""What the commands share in reading their arguments."""

from collections.abc import Iterable

from jsonargparse import Namespace

from cxrssl.errors import InputError

__all__ = ["appending", "place_index"]


def appending(arguments: Iterable[str], *flags: str) -> list[str]:
    """Return arguments such that a repeated one of some flags adds to those before it.

    The parser would take the last one alone.
    """

    def mark(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        return f"{flag}+{equals}{value}" if flag in flags else argument

    return [mark(argument) for argument in arguments]


def place_index(config: Namespace) -> None:
    """Hand the index, where one is given, to the data module.

    Raises:
        InputError: If that has one already or takes none.
    """
    index = config.get("index")
    if index is None:
        return
    arguments = config.data.init_args
    if "index" not in arguments:
        raise InputError(
            f"{config.data.class_path.split('.')[-1]} takes no index: leave {index!r} out"
        )
    if arguments.index is not None:
        raise InputError(f"there are two indexes, {index!r} and data.index: give one of them")
    arguments.index = index

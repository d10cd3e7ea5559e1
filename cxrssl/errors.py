"""Errors that are the user's to mend; the command prints them as one sentence and exits with 2."""

__all__ = ["InputError"]


class InputError(ValueError):
    """What the user gave cannot be used. The message says what, where, and what to do."""

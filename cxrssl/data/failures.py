"""Counting the images that could not be read."""

import warnings

from cxrssl.errors import InputError

__all__ = ["FailureLog", "TooManyCorruptImagesError"]

_LISTED = 20


class TooManyCorruptImagesError(InputError):
    """More images could not be read than the run was told to bear."""


class FailureLog:
    """The distinct images that could not be read in a run, with the reasons.

    Args:
        n_images: Images in the index.
        max_corrupt: Share of them that may be corrupt; one always may.
    """

    def __init__(self, n_images: int, max_corrupt: float) -> None:
        self.n_images = n_images
        self.limit = max(1, int(max_corrupt * n_images))
        self._messages: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def record(self, name: str, message: str) -> None:
        """Note an image; one already known changes nothing.

        Raises:
            TooManyCorruptImagesError: Where this image is one too many.
        """
        self._messages.setdefault(name, message)
        if len(self) > self.limit:
            raise TooManyCorruptImagesError(
                f"{self._summary()}\nmax_corrupt allows {self.limit}: repair or remove these "
                "images, or raise max_corrupt"
            )

    def report(self) -> None:
        """Warn once of everything noted, and forget it."""
        if self._messages:
            warnings.warn(
                f"{self._summary()}\nOther images took their places in training.", stacklevel=2
            )
            self._messages.clear()

    def _summary(self) -> str:
        listed = list(self._messages.values())[:_LISTED]
        more = len(self) - len(listed)
        lines = [f"{len(self)} of {self.n_images} images could not be read:", *listed]
        return "\n".join(lines + ([f"and {more} more"] if more else []))

"""What happens to a step whose loss or gradient is not finite."""

import warnings
from collections.abc import Callable, Sequence

from torch import Tensor

from cxrssl.errors import FailedRunError

__all__ = ["NonFiniteLossError", "NonFiniteSteps"]


class NonFiniteLossError(FailedRunError):
    """The loss or its gradient was not finite for several steps in a row."""


class NonFiniteSteps:
    """Keeps the books of one run: which steps are spoilt, how many, and when it is too much.

    A step is skipped as a whole: one bad micro-batch spoils those accumulated with it.

    Args:
        limit: Spoilt steps in a row that are borne.

    Attributes:
        total: Spoilt steps so far.
        in_a_row: Those since the last one that was not.
        spoilt: What is not finite in the step under way, None while all is well.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.spoilt: str | None = None
        self.in_a_row = 0
        self._images: list[Tensor] = []
        self._suspects: list[int] = []

    def see(self, images: Tensor) -> None:
        """Note the image numbers (B,) of the next micro-batch, which may stay on a GPU."""
        self._images.append(images)

    def spoil(self, what: str, suspects: Sequence[Tensor] | None = None) -> None:
        """Mark the step; without suspects all its images are."""
        self.spoilt = self.spoilt or what
        for images in self._images if suspects is None else suspects:
            self._suspects += images.tolist()

    def close(self, step: int, names: Callable[[Sequence[int]], Sequence[str]]) -> None:
        """End the step: forget its images, and warn or stop where it was spoilt.

        Args:
            step: Number of the step.
            names: Turns image numbers into file names.

        Raises:
            NonFiniteLossError: Where one step too many in a row was spoilt.
        """
        what, suspects = self.spoilt, self._suspects
        self.spoilt, self._images, self._suspects = None, [], []
        if what is None:
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        images = ", ".join(names(suspects)) if suspects else "none of this process"
        message = f"Step {step} was skipped: its {what} is not finite."
        if self.in_a_row > self.limit:
            raise NonFiniteLossError(
                f"{message} That makes {self.in_a_row} in a row, so the run stops. "
                f"Try a lower learning rate, more warm-up or float32. Images: {images}"
            )
        warnings.warn(f"{message} Images: {images}", stacklevel=2)

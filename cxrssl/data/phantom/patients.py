"""Which patient owns which image, without a table."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError

__all__ = ["PatientRegister"]

_GOLDEN = (5**0.5 - 1) / 2


class PatientRegister:
    """Gives every image number a patient; patients own 1 to ``most`` consecutive images.

    Images come in blocks of 1 + 2 + ... + ``most``; a block holds one patient of each count, in an
    order of its own.

    Args:
        seed: Another seed gives other orders.
        most: Largest number of images of one patient.

    Raises:
        InputError: If ``most`` is not positive.
    """

    def __init__(self, seed: int, most: int) -> None:
        if most < 1:
            raise InputError(f"images_per_patient must be at least 1, got {most}")
        self._seed = seed
        self._most = most
        self._block = most * (most + 1) // 2

    def owner(self, number: int) -> int:
        """Return the patient, from 0 upwards, that owns an image."""
        block, place = divmod(number, self._block)
        rng = np.random.default_rng((self._seed, block, 2))
        ends = np.cumsum(rng.permutation(self._most) + 1)
        return block * self._most + int(np.searchsorted(ends, place, side="right"))

    def split(self, patients: NDArray[np.int64], shares: Sequence[float]) -> NDArray[np.int64]:
        """Return 0, 1 or 2 for each patient, in given shares.

        Steps of the golden ratio spread patients evenly over [0, 1): the shares hold closely in
        every stretch of patients, and a patient's part never depends on how many there are.

        Args:
            patients: (n,) numbers of patients.
            shares: Of the three parts; they sum to 1.
        """
        start = np.random.default_rng((self._seed, 3)).random()
        position = (start + patients * _GOLDEN) % 1
        return np.searchsorted(np.cumsum(shares[:2]), position, side="right")

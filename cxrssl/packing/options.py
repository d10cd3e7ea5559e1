"""How a store is packed."""

from dataclasses import dataclass
from typing import Literal, get_args

from cxrssl.arguments import usable_cores
from cxrssl.errors import InputError

__all__ = ["PackOptions"]

Compression = Literal["none", "lz4", "zstd"]


@dataclass(frozen=True)
class PackOptions:
    """How a store is packed.

    Args:
        size: Most pixels of the shorter side: larger images are made smaller by averaging areas,
            their aspect kept. As they are if left out.
        bits: Bits of a pixel. With 16 the grey levels of DICOM and 16-bit files are kept; training
            is shown 8 either way.
        compression: ``none``, ``lz4`` (8-bit radiographs take a quarter less, and are read at half
            the speed) or ``zstd`` (a third less, a fifth).
        workers: Processes that decode; one a core by default.
        max_corrupt: Share of the images that may be unreadable before packing stops; a single one
            never stops it.
        retry: Try images again that could not be read before.
        verify: Read the finished store back and check every image.

    Raises:
        InputError: If a value is out of range.
    """

    size: int | None = None
    bits: Literal[8, 16] = 8
    compression: Compression = "none"
    workers: int | None = None
    max_corrupt: float = 0.01
    retry: bool = False
    verify: bool = False

    def __post_init__(self) -> None:
        _check("size", self.size, self.size is None or self.size >= 1, "at least 1")
        _check("bits", self.bits, self.bits in (8, 16), "8 or 16")
        known = get_args(Compression)
        _check("compression", self.compression, self.compression in known, " or ".join(known))
        _check("workers", self.workers, self.workers is None or self.workers >= 1, "at least 1")
        _check("max_corrupt", self.max_corrupt, 0 <= self.max_corrupt <= 1, "in [0, 1]")

    @property
    def processes(self) -> int:
        """Processes that work: as many as asked for, or as there are cores for this one."""
        if self.workers is not None:
            return self.workers
        return usable_cores()


def _check(name: str, value: object, good: bool, wanted: str) -> None:
    if not good:
        raise InputError(f"{name} must be {wanted}, got {value}")

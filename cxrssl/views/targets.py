"""What of an image, beside its pixels, a set of views is given."""

from typing import NamedTuple

__all__ = ["Targets"]


class Targets(NamedTuple):
    """What of an image beside its pixels is wanted, which the data module reads.

    Attributes:
        findings: Label columns of the index, in the order of the labels (F,) of a sample.
        structures: Structures with masks, in the order of the masks (K, H, W) of a sample.
        text: Whether the report of the image is read.
    """

    findings: tuple[str, ...] = ()
    structures: tuple[str, ...] = ()
    text: bool = False

    @property
    def wanted(self) -> bool:
        """Whether anything beside the pixels is read."""
        return bool(self.findings or self.structures or self.text)

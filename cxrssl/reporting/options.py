"""What a report card shows."""

from dataclasses import dataclass

from cxrssl.errors import InputError

__all__ = ["ReportOptions"]


@dataclass(frozen=True)
class ReportOptions:
    """What a report card shows.

    Args:
        title: Its heading; names the encoders if None.
        images: Test images in the pictures, each of another patient.
        neighbours: Nearest images shown and scored for each.
        landmarks: CSV with the columns ``image`` (its path as in the index, or the number of its
            row, from 1), ``name``, ``x`` and ``y`` (pixels of the original image). Its images take
            the place of the test images where patches are compared, and the same landmark in
            another image is the truth that a match is measured by.
        world_images: Test images on which a world model is measured.
        no_images: Leave out every picture that shows pixels or masks of an image.

    Raises:
        InputError: If a number is too small.
    """

    title: str | None = None
    images: int = 6
    neighbours: int = 5
    landmarks: str | None = None
    world_images: int = 16
    no_images: bool = False

    def __post_init__(self) -> None:
        for name, value, least in (
            ("images", self.images, 2),
            ("neighbours", self.neighbours, 1),
            ("world_images", self.world_images, 2),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")

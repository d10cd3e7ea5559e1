"""Masks of numbered images, from files or drawn from run lengths or polygons."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cxrssl.data.image import ImageReadError, read_image
from cxrssl.data.polygons import fill_polygons
from cxrssl.data.runs import EMPTY, decode_runs, encode_runs
from cxrssl.errors import InputError
from cxrssl.views.structures import resize_masks

__all__ = [
    "MaskFormat",
    "MaskSource",
    "decode_runs",
    "encode_runs",
    "fill_polygons",
]

MaskFormat = Literal["file", "gap", "absolute", "kaggle", "polygon"]

UNKNOWN = 255
"""Value of pixels of which nothing is known."""

INSIDE = 128
"""Smallest of 256 grey levels that is inside the structure."""


class MaskSource:
    """Masks of numbered images.

    A missing reference (NA, or blank) means that the image was not annotated: nothing is known of
    the structure. ``-1`` means, in every format, that it was, and is empty.

    Args:
        references: One reference per image, for each structure: a path, or the text of
            `decode_runs` or `fill_polygons`. Files are what `read_image` reads, BMP and GIF; from
            128 on, of 8 bits, a pixel is inside. Of ``path#7``, a label map, the pixels whose
            stored value is 7 are. Paths separated by ``|`` are united.
        format: What the references are: ``"file"``, a dialect of run lengths, or ``"polygon"``.
        frame: Height and width of the grid of run lengths and polygons; ``None`` is the image's.
        root: Folder that relative paths start from.
        unknown: Pixel value in files of what is not known, for example 127.
        resize: Whether files of another size than the image cover all of it too, and are brought to
            it, each pixel to the nearest; they are refused otherwise.

    Attributes:
        names: The structures, in the order of the masks.

    Raises:
        InputError: The format is unknown, there is no structure, its references are no text, or
            structures differ in the number of images.
    """

    def __init__(
        self,
        references: Mapping[str, Sequence[Any]],
        *,
        format: MaskFormat = "file",  # noqa: A002 - the word an index is described with
        frame: tuple[int, int] | None = None,
        root: str = "",
        unknown: int | None = None,
        resize: bool = False,
    ) -> None:
        if format not in get_args(MaskFormat):
            raise InputError(
                f"the format of masks must be one of {', '.join(get_args(MaskFormat))}, "
                f"got {format!r}"
            )
        if frame is not None and min(frame) < 1:
            raise InputError(f"the frame of masks must be (height, width) in pixels, got {frame}")
        self.names = tuple(references)
        self.format: MaskFormat = format
        self.frame = frame
        self.root = root
        self.unknown = unknown
        self.resize = resize
        self._columns = [_column(name, references[name]) for name in self.names]
        sizes = [len(column) for column in self._columns]
        if len(set(sizes)) != 1:
            counts = ", ".join(
                f"{n} of {name!r}" for name, n in zip(self.names, sizes, strict=True)
            )
            raise InputError(
                f"each structure needs one reference per image, got {counts or 'none'}"
            )

    def __len__(self) -> int:
        return len(self._columns[0])

    def read(self, number: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the masks of an image.

        Args:
            number: Number of the image, from 0.
            shape: Height H and width W of the image.

        Returns:
            (K, H, W) uint8: 1 inside, 0 outside, 255 unknown.

        Raises:
            ImageReadError: A file cannot be read.
            InputError: A file has another size than the image, which `resize` does not allow, or a
                text is no mask.
        """
        masks = np.zeros((len(self.names), *shape), dtype=np.uint8)
        opened: dict[tuple[str, bool], NDArray[Any]] = {}
        for mask, name, column in zip(masks, self.names, self._columns, strict=True):
            reference = (column[number].as_py() or "").strip()
            if not reference:
                mask[:] = UNKNOWN
            elif reference != EMPTY:
                try:
                    self._fill(mask, reference, opened)
                except ImageReadError:
                    raise
                except InputError as error:
                    raise InputError(f"mask of {name!r} of image {number}: {error}") from None
        return masks

    def _fill(
        self,
        mask: NDArray[np.uint8],
        reference: str,
        opened: dict[tuple[str, bool], NDArray[Any]],
    ) -> None:
        """Write a mask (H, W); a file that several structures share is read once."""
        if self.format == "file":
            for file in reference.split("|"):
                self._add_file(mask, file.strip(), opened)
            return
        height, width = self.frame or mask.shape
        if self.format == "polygon":
            drawn = fill_polygons(reference, height, width)
        else:
            drawn = decode_runs(reference, height, width, self.format)
        mask[:] = resize_masks(drawn[None].view(np.uint8), *mask.shape)[0]

    def _add_file(
        self,
        mask: NDArray[np.uint8],
        reference: str,
        opened: dict[tuple[str, bool], NDArray[Any]],
    ) -> None:
        """Add what is inside in a file to a mask (H, W); what is inside stays so."""
        path, label = _split_label(os.path.join(self.root, reference))
        key = path, label is not None
        if key not in opened:
            levels = _read_levels(*key)
            opened[key] = resize_masks(levels[None], *mask.shape)[0] if self.resize else levels
        levels = opened[key]
        inside = _inside(levels, mask.shape, path, label)
        if self.unknown is not None:
            unknown = levels == self.unknown
            inside &= ~unknown
            mask[unknown & (mask == 0)] = UNKNOWN
        mask[inside] = 1


def _column(name: str, references: Sequence[Any]) -> Any:
    """Return references as one block, which workers share where they would copy a list."""
    try:
        return pa.array(references, type=pa.large_string(), from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"the masks of {name!r} must be given as text: {error}") from None


def _split_label(reference: str) -> tuple[str, int | None]:
    """Split ``path#7`` into its path and value; ``file.npz#7`` is a row, not a value."""
    match = re.fullmatch(r"(.+)#(\d+)", reference, re.DOTALL)
    if match is None or match[1].lower().endswith(".npz"):
        return reference, None
    return match[1], int(match[2])


def _read_levels(path: str, stored: bool) -> NDArray[Any]:
    """Return the pixels (H, W) of a file in 8 bits, or as they are stored."""
    if path.lower().endswith((".bmp", ".gif")):
        return _read_with_opencv(path)
    if not stored:
        return read_image(path).pixels
    read = read_image(path, depth="float32")
    levels: NDArray[np.float32] = np.rint(read.pixels * (2**read.bits - 1))
    return levels


def _read_with_opencv(path: str) -> NDArray[Any]:
    try:
        levels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_GRAYSCALE)
    except OSError as error:
        raise ImageReadError(path, error.strerror or "it cannot be opened") from None
    except cv2.error:
        levels = None
    if levels is None:
        raise ImageReadError(path, "its content is damaged, or of a kind this OpenCV lacks")
    return np.asarray(levels)


def _inside(
    levels: NDArray[Any], shape: tuple[int, ...], path: str, label: int | None
) -> NDArray[np.bool_]:
    """Return which pixels (H, W) of a file are inside the structure."""
    if levels.shape != shape:
        (height, width), (rows, columns) = levels.shape, shape
        raise InputError(
            f"{path} has {height} x {width} pixels (height x width), its image {rows} x {columns}: "
            "resize the mask to the image, or have it done with masks.resize, or name the right "
            "file"
        )
    if label is not None:
        return np.asarray(levels == label)
    if levels.max() == 1:
        # Read by the rule it would silently be empty.
        raise InputError(
            f"{path} has pixels 0 and 1 only, and inside is from {INSIDE} on: write {path}#1"
        )
    return np.asarray(levels >= INSIDE)

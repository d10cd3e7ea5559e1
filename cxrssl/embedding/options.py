"""What of an encoder's tokens is written, and how."""

from dataclasses import dataclass
from typing import Literal, get_args

from cxrssl.errors import InputError

__all__ = ["EmbedOptions", "TokenChoice"]

TokenChoice = Literal["class", "mean", "both", "patches"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Split = Literal["all", "train", "val", "test"]
Numbers = Literal["float32", "float16"]


@dataclass(frozen=True)
class EmbedOptions:
    """What of an encoder's tokens is written, and how.

    Args:
        tokens: The ``class`` token, the ``mean`` patch token, ``both`` side by side, or all
            ``patches``; what the encoder was trained to represent an image with if None.
        layer: Number of the level whose tokens are taken, from 0; negative ones count from the
            end. The last one if None. Of a ViT, every level passes through the final norm.
        image_size: Side in pixels of the images shown; the encoder's own if None.
        split: Images of which split.
        precision: Of the encoder: ``32-true``, or ``bf16-mixed`` and ``16-mixed`` under autocast.
        dtype: Of the numbers that are written.

    Raises:
        InputError: If an option is unknown.
    """

    tokens: TokenChoice | None = None
    layer: int | None = None
    image_size: int | None = None
    split: Split = "all"
    precision: Precision = "32-true"
    dtype: Numbers = "float32"

    def __post_init__(self) -> None:
        for name, kind in (
            ("tokens", TokenChoice),
            ("split", Split),
            ("precision", Precision),
            ("dtype", Numbers),
        ):
            value = getattr(self, name)
            if value not in get_args(kind) and not (name == "tokens" and value is None):
                raise InputError(f"{name} must be {', '.join(get_args(kind))}, got {value!r}")
        if self.image_size is not None and self.image_size < 1:
            raise InputError(f"image_size must be at least 1, got {self.image_size}")

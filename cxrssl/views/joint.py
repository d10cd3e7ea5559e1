"""The views of several objectives, from one read of the image."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrssl.errors import InputError
from cxrssl.views.base import Views
from cxrssl.views.eval_view import EvalView

__all__ = ["JointViews"]

RESERVED = ("failures", "image_number")
"""Entries that the data modules put into a batch beside the views."""


class JointViews(Views):
    """Makes the views of several objectives out of one image.

    A sample is ``{name: sample of that objective}``, a batch ``{name: batch of that objective}``.

    The first objective's views draw from the generator handed in, so that they are those it has
    alone. The others' draw from generators of their own, spawned before anything is drawn: what
    one objective's views draw has no effect on another's.

    Args:
        views: The views of each objective, by its name.
        main: Name of the objective whose size and deterministic view these views have; the first
            one if left out.

    Raises:
        InputError: There are no views, a name is no identifier or one that data modules use, or
            the objectives' images differ in channels or normalisation, which one backbone shares.
    """

    def __init__(self, views: Mapping[str, Views], main: str | None = None) -> None:
        _check_names(views)
        _check_agreement(views)
        if main is not None and main not in views:
            raise InputError(f"main must be one of {', '.join(views)}, got {main!r}")
        self.main = next(iter(views)) if main is None else main
        seen = views[self.main]
        super().__init__(
            image_size=seen.image_size, in_chans=seen.in_chans, mean=seen.mean, std=seen.std
        )
        self.views = dict(views)

    def __call__(self, image: NDArray[np.uint8], rng: np.random.Generator) -> dict[str, Any]:
        """Return the sample of each objective of an image (H, W) uint8."""
        return {
            name: views(image, own)
            for (name, views), own in zip(self.views.items(), self._generators(rng), strict=True)
        }

    def collate(
        self, samples: Sequence[dict[str, Any]], rng: np.random.Generator
    ) -> dict[str, Any]:
        """Return the batch of each objective."""
        return {
            name: views.collate([sample[name] for sample in samples], own)
            for (name, views), own in zip(self.views.items(), self._generators(rng), strict=True)
        }

    def eval_view(self) -> EvalView:
        """Return the deterministic view of the objective called ``main``."""
        return self.views[self.main].eval_view()

    def _generators(self, rng: np.random.Generator) -> list[np.random.Generator]:
        """Return one generator for each objective."""
        others = len(self.views) - 1
        if not others:
            return [rng]
        # numpy appends a child's number to the seed, padded with zeros to four numbers: child 1 of
        # a sample's (seed, epoch, n) would be the stream of batch n, (seed, epoch, n, 0, 1). The
        # children of a child have longer seeds than any of the data modules'.
        return [rng, *rng.spawn(1)[0].spawn(others)]


def _check_names(views: Mapping[str, Views]) -> None:
    if not views:
        raise InputError("views is empty: name at least one objective's views")
    for name in views:
        # A name becomes part of the names of parameters and logged values, which dots and slashes
        # divide.
        if not name.isidentifier():
            raise InputError(
                f"a name of views must consist of letters, digits and underscores and not begin "
                f"with a digit, got {name!r}"
            )
        if name in RESERVED:
            raise InputError(f"{name} is an entry of every batch already: name the views otherwise")


def _check_agreement(views: Mapping[str, Views]) -> None:
    for (first, one), (second, other) in pairwise(views.items()):
        for option in ("in_chans", "mean", "std"):
            values = getattr(one, option), getattr(other, option)
            if values[0] != values[1]:
                raise InputError(
                    f"{option} must be the same for all views, since one backbone sees them, got "
                    f"{values[0]} for {first} and {values[1]} for {second}"
                )

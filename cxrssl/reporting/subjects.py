"""The encoders of a card, the images it shows, and what the encoders make of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cxrssl.analysis.resampling import patients_of
from cxrssl.backbones import Backbone, ViT, class_attention
from cxrssl.data import CXRDataModule
from cxrssl.data.splits import stable_fractions
from cxrssl.data.subsets import image_names
from cxrssl.errors import InputError
from cxrssl.evaluation.cohort import Cohort
from cxrssl.evaluation.encoded import EncodedCohort, Features
from cxrssl.evaluation.results import Results
from cxrssl.reporting.options import ReportOptions
from cxrssl.reporting.runs import Run
from cxrssl.views import EvalView, Views

__all__ = ["Subject", "TokenSample", "Topic", "choose_sample", "encode_rows", "grey_levels", "see"]

_AT_ONCE = 8


@dataclass(frozen=True)
class Subject:
    """One encoder.

    Attributes:
        name: What it is called.
        backbone: The encoder.
        encoded: Features of all images, and the view they are of.
        run: Where it comes from, if that is known.
        head: Checkpoint of a classification on it.
        decoder: Checkpoint of a segmentation on it.
        file: Its weights.
    """

    name: str
    backbone: Backbone
    encoded: Features
    file: str
    run: Run | None = None
    head: str | None = None
    decoder: str | None = None


@dataclass(frozen=True)
class Topic:
    """All that sections are made of.

    Attributes:
        subjects: The encoders, one or two.
        encoded: The images and their features.
        results: What the features are worth.
        options: What is shown.
        sample: Numbers, among the images of the cohort, of those that are shown.
        samples: What each encoder makes of those, by its name.
    """

    subjects: Sequence[Subject]
    encoded: EncodedCohort
    results: Results
    options: ReportOptions
    sample: NDArray[np.intp]
    samples: dict[str, "TokenSample"] = field(default_factory=dict)

    @property
    def cohort(self) -> Cohort:
        """The images."""
        return self.encoded.cohort

    @property
    def data(self) -> CXRDataModule:
        """Where they are from."""
        return self.encoded.data

    @property
    def owners(self) -> NDArray[np.object_]:
        """The patient of each image, None where it is not known."""
        owners = patients_of(self.cohort.rows).astype(object)
        return owners.where(owners.notna(), None).to_numpy()

    def caption(self, number: int) -> str:
        """Return the findings of an image of the cohort in words."""
        labels = self.cohort.labels[number]
        there = [n for n, v in zip(self.cohort.findings, labels, strict=True) if v == 1]
        return ", ".join(there).replace("_", " ") or "none of the findings"

    def tokens(self, subject: Subject) -> "TokenSample":
        """Return what an encoder makes of the images that are shown."""
        if subject.name not in self.samples:
            rows = self.cohort.rows.iloc[self.sample]
            self.samples[subject.name] = encode_rows(subject, self.data, rows)
        return self.samples[subject.name]


@dataclass(frozen=True)
class TokenSample:
    """What an encoder makes of m images.

    Attributes:
        images: What it sees, grey levels in [0, 1], (m, S, S).
        shapes: Height and width of the original images, (m, 2).
        patches: (m, N, D).
        grid: Rows and columns of the patches.
        patch_norms: Norms of patch tokens before the encoder's final norm, (m, N).
        class_norms: The same of class tokens, (m,); None without class tokens.
        attention: From class token to patches, (m, heads, h, w); None where there is none.
    """

    images: NDArray[np.float32]
    shapes: NDArray[np.int64]
    patches: NDArray[np.float32]
    grid: tuple[int, int]
    patch_norms: NDArray[np.float32]
    class_norms: NDArray[np.float32] | None
    attention: NDArray[np.float32] | None


def choose_sample(cohort: Cohort, count: int, seed: int) -> NDArray[np.intp]:
    """Return which test images of a cohort are shown, each of another patient.

    Findings take turns in the order of a hash, so that each is seen as far as there is room.

    Args:
        cohort: The images.
        count: How many are wanted; fewer where there are fewer patients.
        seed: Another seed shows others.
    """
    places = cohort.places("test")
    names = image_names(cohort.rows.iloc[places], cohort.folder)
    order = places[np.argsort(stable_fractions(seed, "report " + names), kind="stable")]
    owners = patients_of(cohort.rows).astype(object).where(lambda who: who.notna(), None)
    chosen: list[int] = []
    seen: set[object] = set()

    def take(candidates: Sequence[int]) -> None:
        for place in candidates:
            owner = owners.iloc[place] or f"image {place}"
            if len(chosen) < count and owner not in seen:
                chosen.append(place)
                seen.add(owner)
                return

    queues = [order[cohort.labels[order, column] == 1] for column in range(cohort.labels.shape[1])]
    while len(chosen) < count:
        before = len(chosen)
        for queue in [*queues, order]:
            take([place for place in queue.tolist() if place not in chosen])
        if len(chosen) == before:
            break
    return np.array(chosen, dtype=np.intp)


def encode_rows(subject: Subject, data: CXRDataModule, rows: pd.DataFrame) -> TokenSample:
    """Return what an encoder makes of some images of an index.

    Raises:
        InputError: If one of them cannot be read.
    """
    view = subject.encoded.view
    views, shapes = _views(view, data, rows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = subject.backbone.eval()
    home = next(backbone.parameters()).device
    backbone.to(device)
    try:
        with torch.no_grad():
            parts = [_encode(backbone, part.to(device)) for part in views.split(_AT_ONCE)]
    finally:
        backbone.to(home)
    patches, norms, classes, attention, grids = zip(*parts, strict=True)
    return TokenSample(
        grey_levels(views, view),
        shapes,
        np.concatenate(patches),
        grids[0],
        np.concatenate(norms),
        _joined(classes),
        _joined(attention),
    )


def see(subject: Subject, data: CXRDataModule, rows: pd.DataFrame) -> NDArray[np.float32]:
    """Return some images of an index as an encoder sees them, grey levels (m, S, S) in [0, 1].

    Raises:
        InputError: If one of them cannot be read.
    """
    view = subject.encoded.view
    return grey_levels(_views(view, data, rows)[0], view)


def grey_levels(views: Tensor, view: Views) -> NDArray[np.float32]:
    """Return views (n, C, H, W) as grey levels (n, H, W) in [0, 1]."""
    grey: NDArray[np.float32] = view.grey(views).numpy()
    return grey


def _joined(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """Return parts one after the other, None if they are."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _views(
    view: EvalView, data: CXRDataModule, rows: pd.DataFrame
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return views (m, C, S, S), and height and width (m, 2) of the original images."""
    source = data.shown_source(rows)
    originals = [source[number] for number in range(len(rows))]
    views = torch.stack([view(image)["image"] for image in originals])
    return views, np.array([image.shape[:2] for image in originals])


def _encode(
    backbone: Backbone, images: Tensor
) -> tuple[
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.float32] | None,
    NDArray[np.float32] | None,
    tuple[int, int],
]:
    """Return patches, norms of patches and class tokens, attention and the grid of a batch."""
    tokens = backbone(images)
    # After a layer norm all tokens are about equally long.
    (raw,) = backbone.levels(images, [-1], norm=False)
    classes = None if raw.cls is None else raw.cls.float().norm(dim=-1).cpu().numpy()
    attention = None
    if isinstance(backbone, ViT) and backbone.has_class_token:
        maps = class_attention(backbone, images).unflatten(-1, tokens.grid)
        attention = maps.cpu().numpy()
    patches = tokens.patches.float().cpu().numpy()
    if not np.isfinite(patches).all():
        raise InputError("the encoder makes NaN or infinity of an image's patches")
    norms = raw.patches.float().norm(dim=-1).cpu().numpy()
    return patches, norms, classes, attention, tokens.grid

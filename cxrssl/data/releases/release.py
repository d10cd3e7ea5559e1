"""What all published datasets share: a folder becomes an index, checked against what is there."""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from cxrssl.data.datamodule import CXRDataModule
from cxrssl.data.releases.fields import ViewPosition
from cxrssl.data.releases.files import existing_files
from cxrssl.data.releases.vocabulary import to_common
from cxrssl.data.splits import assign_splits
from cxrssl.data.targets import MaskRules
from cxrssl.data.validate import label_names
from cxrssl.errors import InputError

__all__ = ["Release"]

_LISTED = 3


class Release(CXRDataModule, ABC):
    """A published dataset, read from the folder that its release unpacks to.

    A dataset of its own subclasses this with its facts and `read_release`. What is common to all:
    identifiers are text; images that the tables name and the folder lacks are left out with a
    warning; the official split stays, and where it has no validation images, `validation` of its
    training patients become some.

    Args:
        root: Folder of the release.
        images: Folder of the images, where it is another: resized copies, or the images that a
            release of labels speaks of. Another suffix than the release's is as good. Boxes and
            masks stay in the frame of the release's own images.
        view_positions: Views to keep, of PA, AP, AP_SUPINE, LATERAL and OTHER; all if None.
        vocabulary: ``release`` keeps the findings and their spelling; ``common`` brings them to
            those that all releases share, see `cxrssl.data.releases.vocabulary`.
        validation: Share of the training patients that validate, where the official split has no
            validation images.
        train_on: Official splits whose images are trained on. Pretraining corpora often take all:
            ``[train, val, test]``; `cxrssl check` says what that exposes.
        split_seed: Another seed draws other splits. Unlike those of a folder they do not follow the
            seed of the run, so that what was held out of one run is held out of the next.
        incomplete: Whether images that the tables name and the folder lacks are left out with a
            warning, or the release is refused.
        options: See `CXRDataModule`.

    Raises:
        InputError: When the index is asked for: if the folder is not such a release, a table lacks
            a column or holds a value it should not, or no image is left.
    """

    title: ClassVar[str]
    """Name of the dataset in the literature."""

    collection: ClassVar[str]
    """Collection its images come from; a re-release has that of the first."""

    findings: ClassVar[tuple[str, ...]] = ()
    """Its labels, in the release's spelling and order."""

    also: ClassVar[tuple[str, ...]] = ()
    """What else it has, of ``boxes`` and ``reports``."""

    structures_of_masks: ClassVar[tuple[str, ...]] = ()
    """What it has masks of."""

    mask_format: ClassVar[MaskRules] = MaskRules()
    """How its masks are written."""

    counts: ClassVar[Mapping[str, int]] = {}
    """What a whole release has, in the words of `cxrssl.data.releases.verify.measure`."""

    traps: ClassVar[tuple[str, ...]] = ()
    """What is particular in its files and taken care of, each in a few words."""

    def __init__(
        self,
        root: str,
        *,
        images: str | None = None,
        view_positions: list[ViewPosition] | None = None,
        vocabulary: Literal["release", "common"] = "release",
        validation: float = 0.1,
        train_on: list[Literal["train", "val", "test"]] | None = None,
        split_seed: int = 0,
        incomplete: Literal["warn", "refuse"] = "warn",
        **options: Any,
    ) -> None:
        rules = type(self).mask_format
        super().__init__(index=None, root=root, columns=None, labels=None, masks=rules, **options)
        if not 0 <= validation < 1:
            raise InputError(f"validation must be a share in [0, 1), got {validation}")
        self.root = root
        self.images_root = images or root
        self.view_positions = view_positions
        self.vocabulary = vocabulary
        self.validation = validation
        self.train_on = ["train"] if train_on is None else train_on
        self.split_seed = split_seed
        self.incomplete = incomplete

    # What a dataset says.

    @abstractmethod
    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image with the columns of an index that the release knows.

        ``path`` is relative to the folder of the images. Label columns are `findings` and no other.
        ``origin`` and ``origin_patient`` are filled in from ``collection`` by `make_index`: from
        the column ``image``, the name of the image in its collection, and ``patient_id``, where
        the frame has no such columns itself. A release without an official split has no column
        ``split``; rows whose split is missing are divided by patient.
        """

    def common_labels(self, index: pd.DataFrame) -> pd.DataFrame:
        """Return the labels of the common vocabulary of an index with those of the release.

        A release whose words mean something else than those of others says so here.
        """
        return to_common(index, label_names(index))

    # What follows from it.

    def make_index(self) -> pd.DataFrame:
        """Return the index of the release."""
        root = Path(self.root)
        for folder in (root, Path(self.images_root)):
            if not folder.is_dir():
                raise InputError(f"{folder} is no folder: give the folder of {self.title} as root")
        frame = self._with_origins(self._of_views(self._present(self.read_release(root))))
        if self.vocabulary == "common":
            findings = label_names(frame)
            frame = pd.concat([frame.drop(columns=findings), self.common_labels(frame)], axis=1)
        frame["dataset"] = type(self).__name__
        frame["path"] = [os.path.join(self.images_root, path) for path in frame["path"]]
        return self._with_splits(frame)

    @property
    def image_folder(self) -> str:
        """Folder that relative paths of images and masks start from."""
        return self.images_root

    def _present(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows whose images are there; say which are not."""
        found = existing_files(self.images_root, frame["path"].tolist())
        there = np.array([path is not None for path in found], dtype=np.bool_)
        if missing := int((~there).sum()):
            self._report(missing, frame["path"][~there].tolist(), len(frame))
        frame = frame[there].reset_index(drop=True)
        frame["path"] = pd.array(found[there], dtype="string")
        return frame

    def _of_views(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows whose view is wanted."""
        if self.view_positions is None:
            return frame
        if "view_position" not in frame:
            raise InputError(f"{self.title} does not tell views: leave view_positions out")
        chosen = frame[frame["view_position"].isin(self.view_positions)].reset_index(drop=True)
        if chosen.empty:
            raise InputError(
                f"no image of {self.root} is {' or '.join(self.view_positions)}: check "
                "view_positions"
            )
        return chosen

    def _report(self, missing: int, names: Sequence[str], of: int) -> None:
        message = (
            f"{self.title} in {self.images_root}: {missing} of {of} images are not there, for "
            f"example {', '.join(names[:_LISTED])}"
        )
        if missing == of:
            raise InputError(f"{message}: unpack the images, or give their folder as images")
        if self.incomplete == "refuse":
            raise InputError(f"{message}: complete the release, or set incomplete to warn")
        warnings.warn(f"{message}. They are left out.", stacklevel=2)

    def _with_origins(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with what identifies images and patients across releases."""
        sources = {"origin": "image", "origin_patient": "patient_id"}
        for column, source in sources.items():
            if column not in frame and source in frame:
                name = frame[source].astype("string")
                frame[column] = f"{self.collection}:" + name.mask(name == "")
        return frame.drop(columns="image", errors="ignore")

    def _with_splits(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with a split of every row, by patient where the release has none."""
        nothing = pd.array([pd.NA] * len(frame), dtype="string")
        lacking = {name: nothing for name in ("patient_id", "split") if name not in frame}
        frame = frame.assign(**lacking)
        frame = frame.assign(split=frame["split"].mask(frame["split"].isin(self.train_on), "train"))
        frame = self._divide(frame, frame["split"].isna(), self.split)
        train = frame["split"] == "train"
        if self.validation and train.any() and not (frame["split"] == "val").any():
            frame = self._divide(frame, train, (1 - self.validation, self.validation, 0.0))
        return frame

    def _divide(
        self, frame: pd.DataFrame, chosen: "pd.Series[bool]", shares: tuple[float, float, float]
    ) -> pd.DataFrame:
        """Return the frame with the chosen rows divided anew by patient."""
        if not chosen.any():
            return frame
        rows = frame[chosen].assign(split=pd.array([pd.NA] * int(chosen.sum()), dtype="string"))
        drawn = assign_splits(rows, shares, self.split_seed, folder=self.images_root)["split"]
        return frame.assign(split=frame["split"].astype("string").where(~chosen, drawn))

"""CANDID-PTX."""

from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pandas as pd

from cxrssl.data.releases.files import find_file, find_files, find_optional, locate
from cxrssl.data.releases.regions import join_regions
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import read_table
from cxrssl.data.runs import EMPTY
from cxrssl.data.targets import MaskRules
from cxrssl.data.validate import MASK

__all__ = ["CandidPTX"]

Column: TypeAlias = "pd.Series[Any]"

_COLUMNS = ("SOPInstanceUID", "EncodedPixels", "Report", "filename")
_TABLES = {
    "chest_tube": ("chest_tube.csv", "*[Tt]ube*.csv"),
    "rib_fracture": (
        "acute_rib_fracture.csv",
        "Rib_fracture_mask_rle.csv",
        "*[Rr]ib*[Ff]racture*.csv",
    ),
}


class CandidPTX(Release):
    """CANDID-PTX (Feng et al., 2021): 19,237 radiographs with pneumothoraces, tubes and fractures.

    Reads ``Pneumothorax_reports.csv``, and the tables of chest tubes and of acute rib fractures,
    which speak of positive images only: all others are negative where the table is there. An image
    with a blank in place of run lengths is not known to have a pneumothorax or not. An image that
    is given to two patients is left out. Images are found anywhere below the folder; their files
    have no suffix. See `Release` for the arguments.
    """

    title: ClassVar[str] = "CANDID-PTX"
    also: ClassVar[tuple[str, ...]] = ("reports",)
    collection: ClassVar[str] = "candid"
    findings: ClassVar[tuple[str, ...]] = ("Pneumothorax", "Chest tube", "Rib fracture")
    structures_of_masks: ClassVar[tuple[str, ...]] = ("pneumothorax", *_TABLES)
    mask_format: ClassVar[MaskRules] = MaskRules("gap", (1024, 1024))
    counts: ClassVar[dict[str, int]] = {"images": 19_236}
    traps: ClassVar[tuple[str, ...]] = (
        "DICOM files without a suffix",
        "a byte order mark",
        "a blank that is neither positive nor negative",
        "several rows for one image",
        "an image of two patients",
        "tables of positive images only",
    )

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image of the table of reports."""
        file = find_file(root, "Pneumothorax_reports.csv", "*[Pp]neumothorax*[Rr]eport*.csv",
                         release=self.title)  # fmt: skip
        table = read_table(file, _COLUMNS)
        images = table["SOPInstanceUID"].str.strip()
        patients = table["filename"].str.strip().str.partition("_")[0]
        known = table.assign(patient_id=patients).mask(lambda cells: cells == "")
        by_image = known.groupby(images, sort=False)
        first = by_image[["patient_id", "Report"]].first()
        first = first[by_image["patient_id"].nunique() <= 1]
        names = first.index
        frame = pd.DataFrame(
            {
                "path": locate(names, find_files(Path(self.images_root), ("",))),
                "image": names,
                "patient_id": first["patient_id"].array,
                "text": first["Report"].array,
            }
        )
        pneumothorax = join_regions(images, table["EncodedPixels"], file).reindex(names)
        masks = {"pneumothorax": pneumothorax}
        labels = {"Pneumothorax": (pneumothorax != EMPTY).astype("Float32")}
        for finding, (structure, patterns) in zip(self.findings[1:], _TABLES.items(), strict=True):
            masks[structure], labels[finding] = _positives(find_optional(root, *patterns), names)
        columns = {MASK + name: texts for name, texts in masks.items()} | labels
        return frame.assign(**{name: values.array for name, values in columns.items()})


def _positives(file: Path | None, names: "pd.Index[str]") -> tuple[Column, Column]:
    """Return the masks and labels of named images from a table of positive images.

    Of a positive image without a region no mask is known; without a table nothing is.
    """
    if file is None:
        nothing = pd.Series(pd.NA, index=names)
        return nothing.astype("string"), nothing.astype("Float32")
    # The middle column has no name to rely on.
    table = read_table(file, header=0, names=["image", "reference", "mask"], usecols=range(3))
    regions = join_regions(table["image"].str.strip(), table["mask"], file)
    listed = names.isin(regions.index)
    masks = regions.mask(regions == EMPTY).reindex(names).where(listed, EMPTY)
    return masks, pd.Series(listed, index=names).astype("Float32")

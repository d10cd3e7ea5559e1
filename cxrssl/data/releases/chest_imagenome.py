"""Chest ImaGenome."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data.releases.boxes import Box, format_boxes
from cxrssl.data.releases.fields import view_positions
from cxrssl.data.releases.files import find_files, find_optional
from cxrssl.data.releases.mimic_tables import mimic_paths, mimic_splits
from cxrssl.data.releases.release import Release
from cxrssl.data.releases.tables import read_table
from cxrssl.data.targets import MaskRules
from cxrssl.data.validate import MASK
from cxrssl.errors import InputError

__all__ = ["ZONES", "ChestImaGenome"]

ZONES = tuple(
    f"{side} {height} lung zone"
    for side in ("right", "left")
    for height in ("upper", "mid", "lower")
)
"""The six zones of the lungs; sides are the patient's."""

_GRAPH = "_SceneGraph.json"
_SIDES = ("original_x1", "original_y1", "original_x2", "original_y2")
_RELATIONS = {"yes": 1.0, "no": 0.0}
_THREADS = 8
_LISTED = 20


class _Graph(NamedTuple):
    """What one file says."""

    patient: str
    study: str
    view: str
    boxes: dict[str, Box]
    findings: dict[str, float]


class ChestImaGenome(Release):
    """Chest ImaGenome (Wu et al., 2021): regions of 243,000 frontal images of MIMIC-CXR.

    Reads a scene graph per image, the split of ``silver_dataset/splits``, and leaves out what
    ``images_to_avoid.csv`` lists, among it the images of the gold standard. Boxes have the name of
    the region in place of a finding; they were drawn by a detector. Those of the six zones are
    masks too, ``mask/right upper lung zone`` and so on, in pixels of the images of MIMIC-CXR, so
    that `images` must be the folder of MIMIC-CXR or MIMIC-CXR-JPG, not of resized copies. Labels
    are those of the whole image: 1 where any region has the finding, 0 where one is said not to and
    none has it, missing otherwise. Reading all graphs takes minutes. See `Release` for the other
    arguments.

    Args:
        root: Folder of the release, with ``scene_graph.zip`` unpacked.
        regions: Regions to keep the boxes of: all, or the zones.
        attributes: Findings to read from the attributes, in the release's words, as in
            ``anatomicalfinding|yes|lung opacity``; they are the labels. That one if None.
        official_split: Whose split images have: the release's, or MIMIC-CXR's, whose table is then
            in the folder of the images. Those that it does not list are left out.
        options: See `Release`.
    """

    title: ClassVar[str] = "Chest ImaGenome"
    also: ClassVar[tuple[str, ...]] = ("boxes",)
    collection: ClassVar[str] = "mimic"
    findings: ClassVar[tuple[str, ...]] = ("lung opacity",)
    structures_of_masks: ClassVar[tuple[str, ...]] = ZONES
    mask_format: ClassVar[MaskRules] = MaskRules(format="polygon")
    traps: ClassVar[tuple[str, ...]] = (
        "boxes of no area, and repeated ones",
        "images in a split without a graph",
        "a folder scene_graph in another",
        "images of the gold standard",
        "a split that crosses that of MIMIC-CXR",
        "left and right are the patient's",
    )

    def __init__(
        self,
        root: str,
        *,
        regions: Literal["all", "zones"] = "all",
        attributes: list[str] | None = None,
        official_split: Literal["imagenome", "mimic"] = "imagenome",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.regions = regions
        self.official_split = official_split
        if attributes is not None:
            # Of an instance: the release has more attributes than anyone wants as labels.
            self.findings = tuple(attributes)  # type: ignore[misc]

    def read_release(self, root: Path) -> pd.DataFrame:
        """Return one row per image that has a graph and a split."""
        files = _graphs(root)
        chosen = self._chosen(root, pd.Series(list(files), dtype="string"))
        with ThreadPoolExecutor(_THREADS) as pool:
            graphs = list(pool.map(_read_graph, (root / files[name] for name in chosen["image"])))
        self._check_attributes(graphs, root)
        frame = chosen.assign(
            patient_id=[graph.patient for graph in graphs],
            study_id=[graph.study for graph in graphs],
            view_position=view_positions(pd.Series([graph.view for graph in graphs])),
            boxes=pd.array([self._boxes(graph) for graph in graphs], dtype="string"),
        )
        ids = {"image": "dicom_id", "patient_id": "subject_id"}
        frame["path"] = mimic_paths(Path(self.images_root), frame.rename(columns=ids))
        for zone in ZONES:
            frame[MASK + zone] = [_polygon(graph.boxes.get(zone)) for graph in graphs]
        frame[list(self.findings)] = self._labels(graphs)
        return frame

    def _chosen(self, root: Path, names: "pd.Series[str]") -> pd.DataFrame:
        """Return image, and split if there is one, of the images that are in it."""
        folder = find_optional(root, "silver_dataset/splits", "splits") or root
        avoided = find_optional(folder, "images_to_avoid.csv")
        if avoided is not None:
            listed = read_table(avoided, ("dicom_id",))["dicom_id"]
            names = names[~names.isin(listed)].reset_index(drop=True)
        if self.official_split == "mimic":
            split = mimic_splits(Path(self.images_root), names)
            if split is None:
                raise InputError(
                    f"{self.images_root} has no mimic-cxr-2.0.0-split.csv.gz: copy it there, or "
                    "leave official_split out"
                )
        else:
            split = _own_split(folder, names)
        frame = pd.DataFrame({"image": names})
        if split is not None:
            frame = frame.assign(split=split)[split.notna()].reset_index(drop=True)
        if frame.empty:
            raise InputError(
                f"{root}: no scene graph is of an image that the split lists: check that graphs "
                "and split are of one release"
            )
        return frame

    def _boxes(self, graph: _Graph) -> str | None:
        wanted = ZONES if self.regions == "zones" else tuple(graph.boxes)
        boxes = [graph.boxes[name] for name in wanted if name in graph.boxes]
        return format_boxes(boxes) if boxes else None

    def _labels(self, graphs: list[_Graph]) -> NDArray[np.float32]:
        rows = [[graph.findings.get(name, np.nan) for name in self.findings] for graph in graphs]
        return np.array(rows, dtype=np.float32).reshape(len(graphs), len(self.findings))

    def _check_attributes(self, graphs: list[_Graph], root: Path) -> None:
        known = {name for graph in graphs for name in graph.findings}
        if unknown := set(self.findings) - known:
            raise InputError(
                f"{root}: no image has the attribute {sorted(unknown)[0]!r}; there are "
                f"{', '.join(sorted(known)[:_LISTED])}: check attributes"
            )


def _graphs(root: Path) -> dict[str, str]:
    """Return the path, relative to the root, of the graph of each image."""
    found = find_files(root, (_GRAPH.lower(),))
    if not found:
        raise InputError(
            f"{root} is no release of {ChestImaGenome.title}: it has no file *{_GRAPH}; unpack "
            "silver_dataset/scene_graph.zip"
        )
    return {name[: -len(_GRAPH)]: found[name] for name in sorted(found)}


def _own_split(folder: Path, names: "pd.Series[str]") -> "pd.Series[str] | None":
    """Return the split (n,) of images that the release's lists say, None without lists."""
    splits: dict[str, str] = {}
    for split, name in (("train", "train.csv"), ("val", "valid.csv"), ("test", "test.csv")):
        file = find_optional(folder, name)
        if file is not None:
            splits |= dict.fromkeys(read_table(file, ("dicom_id",))["dicom_id"], split)
    return names.map(splits).astype("string") if splits else None


def _read_graph(file: Path) -> _Graph:
    try:
        graph = json.loads(file.read_bytes())
        return _Graph(
            str(graph["patient_id"]),
            str(graph["study_id"]),
            str(graph["viewpoint"]),
            _regions(graph["objects"]),
            _findings(graph["attributes"]),
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} cannot be read as a scene graph: {error!r}") from None


def _regions(objects: list[dict[str, Any]]) -> dict[str, Box]:
    """Return the first box that has an area of each region."""
    boxes: dict[str, Box] = {}
    for item in objects:
        left, top, right, bottom = (float(item[side]) for side in _SIDES)
        if left < right and top < bottom:
            name = str(item["bbox_name"])
            boxes.setdefault(name, Box(name, left, top, right, bottom))
    return boxes


def _findings(regions: list[dict[str, Any]]) -> dict[str, float]:
    """Return 1 for what any region has, 0 for what is only said to be absent."""
    labels: dict[str, float] = {}
    texts = (text for region in regions for group in region["attributes"] for text in group)
    for text in texts:
        _, relation, name = text.split("|", 2)
        if relation in _RELATIONS:
            labels[name] = max(labels.get(name, 0.0), _RELATIONS[relation])
    return labels


def _polygon(box: Box | None) -> str | None:
    """Return a box as a polygon, whose outermost pixels are filled too."""
    if box is None:
        return None
    right, bottom = max(box.left, box.right - 1), max(box.top, box.bottom - 1)
    corners = (box.left, box.top, right, box.top, right, bottom, box.left, bottom)
    return " ".join(f"{corner:g}" for corner in corners)

"""Which collections of images are made of which, and what of two indices can be compared."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import pandas as pd

from cxrssl.data.datamodule import CXRDataModule

__all__ = ["PARENTS", "Group", "Relation", "groups", "relation"]

PARENTS: dict[str, tuple[str, ...]] = {
    "chestmnist": ("nih",),
    "chestxdet": ("nih",),
    "chestxdet10": ("chestxdet", "nih"),
    "chexlocalize": ("chexpert",),
    "covidx": ("actmed", "bimcv", "cohen", "fig1", "ricord", "rsna", "sirm", "stonybrook"),
    "cxr-lt": ("mimic",),
    "imagenome": ("mimic",),
    "ms-cxr": ("mimic",),
    "nih-cxr-lt": ("nih",),
    "pneumoniamnist": ("kermany",),
    "qatacov19": ("bimcv", "cohen", "nih", "ricord", "rsna", "sirm"),
    "rsna": ("nih",),
    "siim": ("nih",),
    "slake": ("nih",),
    "tbx11k": ("montgomery", "shenzhen"),
    "vindr-ribcxr": ("vindr",),
}
"""Collection to those it took images from. Images that still say where they are from have the
collection of their origin instead, so that only what has lost its name is told by this."""

Relation = Literal["same", "related", "unrelated", "unknown"]


class Group(NamedTuple):
    """Rows of an index of which the same can be said.

    Attributes:
        dataset: Value of the column dataset, empty where missing.
        collection: Where the images were first released, as far as that is known.
        origin: Whether each row has an origin.
        owner: Whether each row has an origin of its patient.
        patient: Whether each row has a patient.
    """

    dataset: str
    collection: str | None
    origin: bool
    owner: bool
    patient: bool


def groups(index: pd.DataFrame) -> list[Group]:
    """Return the groups of rows of an index."""
    known = _collections()
    dataset = index["dataset"].fillna("").astype(object)
    nothing = pd.Series(pd.NA, index=index.index, dtype="string")
    origin, owner = (index.get(name, nothing) for name in ("origin", "origin_patient"))
    first = origin.fillna(owner).str.extract(r"^([^:]+):", expand=False)
    named = dataset.map(lambda name: known.get(str(name).lower()))
    table = pd.DataFrame(
        {
            "dataset": dataset,
            "collection": first.astype(object).where(first.notna(), named),
            "origin": origin.notna(),
            "owner": owner.notna(),
            "patient": index["patient_id"].notna(),
        }
    ).drop_duplicates()
    return [
        Group(str(row[0]), row[1] if isinstance(row[1], str) else None, *map(bool, row[2:]))
        for row in table.itertuples(index=False, name=None)
    ]


def relation(first: Group, second: Group) -> Relation:
    """Return how the collections of two groups are related.

    ``related`` have images in common that no name tells; ``unknown`` is what a dataset that is
    neither a release nor named like a collection may have in common with another.
    """
    if first.dataset == second.dataset and first.collection == second.collection:
        return "same"
    if first.collection is None or second.collection is None:
        return "unknown"
    if first.collection == second.collection:
        return "same"
    shared = set(_ancestors(first.collection)) & set(_ancestors(second.collection))
    return "related" if shared else "unrelated"


def _ancestors(collection: str) -> Iterator[str]:
    yield collection
    for parent in PARENTS.get(collection, ()):
        yield from _ancestors(parent)


def _collections() -> dict[str, str]:
    """Return the collection of each dataset, by its name in lower case."""
    known = {name: name for name in {*PARENTS, *(name for of in PARENTS.values() for name in of)}}
    return known | {
        kind.__name__.lower(): str(kind.collection)
        for kind in _below(CXRDataModule)
        if hasattr(kind, "collection")
    }


def _below(kind: type[CXRDataModule]) -> Iterator[type[CXRDataModule]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)

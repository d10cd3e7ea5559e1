"""The model card of an exported encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from cxrssl.backbones import Backbone
from cxrssl.errors import InputError
from cxrssl.exporting.layout import Layout
from cxrssl.exporting.provenance import Provenance

__all__ = ["Card", "card_text"]

_NOT_SAID = "not stated"
_WARNING = (
    "**Not a medical device.** This encoder is for research. Nothing it computes may be used for "
    "diagnosis or treatment."
)
_INTENDED = (
    "Features of chest radiographs for research: probing, fine-tuning, retrieval, and comparison "
    "of pretraining methods."
)
_LIMITS = (
    "Radiographs of other hospitals, devices, ages or views than those of the training data may "
    "be represented worse, and features may tell a patient's sex, age or origin. Measure both on "
    "your own data before relying on it."
)


@dataclass(frozen=True)
class Card:
    """What the authors of an encoder say of it; what a run tells of itself is filled in.

    Args:
        title: Name of the model; that of its folder if None.
        licence: Identifier of the licence of the weights, e.g. ``apache-2.0``, ``cc-by-nc-4.0`` or
            ``other``.
        licence_name: Name of a licence that is ``other``.
        licence_link: Where its text is.
        authors: Who made it.
        datasets: Names of the datasets it was trained on, instead of those that the run tells.
        images: Number of images it was trained on, instead of what the run tells.
        intended_use: What it is for, instead of the usual sentence.
        limitations: What it cannot do, instead of the usual sentences.
        citation: How it is to be cited.

    Raises:
        InputError: If a name of a dataset is a path, or a licence has a name or link but is none.
    """

    title: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    authors: str | None = None
    datasets: list[str] = field(default_factory=list)
    images: int | None = None
    intended_use: str | None = None
    limitations: str | None = None
    citation: str | None = None

    def __post_init__(self) -> None:
        paths = [name for name in self.datasets if "/" in name or "\\" in name]
        if paths:
            raise InputError(f"card.datasets are names, not paths, got {paths[0]!r}")
        if self.licence is None and (self.licence_name or self.licence_link):
            raise InputError(
                "card.licence_name and card.licence_link need card.licence, e.g. other"
            )
        if self.images is not None and self.images < 1:
            raise InputError(f"card.images must be at least 1, got {self.images}")


def card_text(
    card: Card, encoder: Backbone, layout: Layout, provenance: Provenance, out_name: str
) -> str:
    """Return the model card as Markdown with its head in YAML.

    Args:
        card: What the authors say.
        encoder: The encoder.
        layout: How it is written.
        provenance: What is known of its training.
        out_name: Name of the folder.
    """
    title = _line(card.title or out_name)
    sections = [
        f"---\n{_head(card, layout)}---\n\n# {title}\n\n{_WARNING}",
        f"## Use\n\n```python\n{layout.usage.format(out=out_name)}\n```\n\n"
        f"{_list(_interface(encoder, layout))}",
        f"## Intended use\n\n{card.intended_use or _INTENDED}",
        f"## Limits\n\n{card.limitations or _LIMITS}",
        f"## Data\n\n{_list(_data(card, provenance))}",
        f"## Recipe\n\n{_list(provenance.recipe or {'recipe': _NOT_SAID})}",
        f"## Probes\n\n{_probes(provenance.probes)}",
        f"## Licence\n\n{_licence(card)}",
    ]
    if card.citation:
        sections.append(f"## Citation\n\n{card.citation}")
    return "\n\n".join(sections) + "\n"


def _head(card: Card, layout: Layout) -> str:
    head: dict[str, Any] = {
        "license": card.licence,
        "license_name": card.licence_name,
        "license_link": card.licence_link,
        "library_name": layout.library,
        "pipeline_tag": "image-feature-extraction",
        "tags": ["chest-x-ray", "radiology", "self-supervised-learning", "cxrssl"],
    }
    known = {key: value for key, value in head.items() if value is not None}
    text: str = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    return text


def _interface(encoder: Backbone, layout: Layout) -> dict[str, str]:
    size, resize = encoder.image_size, encoder.resize or encoder.image_size
    margin = "" if resize == size else f", the centre of a shorter side of {resize} px"
    mean, std = encoder.normalisation or (_NOT_SAID, _NOT_SAID)
    facts = {
        "architecture": f"{type(encoder).__name__} {encoder.arguments['name']}, width "
        f"{encoder.embed_dim}, {sum(p.numel() for p in encoder.parameters()):,} parameters",
        "images": f"{encoder.in_chans} x {size} x {size} px{margin}; bones bright",
        "grey values": f"in [0, 1], less the mean {mean}, divided by the standard deviation {std}",
        "stands for the image": {
            "class": "the class token",
            "mean": "the mean patch token",
            "both": "the class token and the mean patch token",
        }[encoder.pooling()],
    }
    trained = getattr(encoder, "interpolation", layout.resampling)
    if trained != layout.resampling:
        facts["other image sizes"] = (
            f"{layout.library} resamples positions otherwise than in training (there: {trained}), "
            "so that outputs differ at sizes other than its own"
        )
    return facts


def _data(card: Card, provenance: Provenance) -> dict[str, str]:
    datasets = card.datasets or provenance.datasets
    images = provenance.images if card.images is None else card.images
    return {
        "datasets": ", ".join(_line(name) for name in datasets) or _NOT_SAID,
        "training images": _NOT_SAID if images is None else f"{images:,}",
    } | ({"authors": _line(card.authors)} if card.authors else {})


def _probes(probes: Sequence[tuple[str, int, float]]) -> str:
    if not probes:
        return "None were measured in training."
    rows = ["| score | step | value |", "|---|---|---|"]
    rows += [f"| {name} | {step:,} | {value:.4f} |" for name, step, value in probes]
    return "On held-out images, during training.\n\n" + "\n".join(rows)


def _licence(card: Card) -> str:
    if card.licence is None:
        return "No licence is stated: ask the authors before any use."
    name = card.licence_name or card.licence
    link = f" ({card.licence_link})" if card.licence_link else ""
    return f"The weights: {_line(name)}{link}. The datasets have licences of their own."


def _list(facts: Mapping[str, str]) -> str:
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split())

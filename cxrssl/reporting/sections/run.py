"""What the encoders are, how they were trained, and the curves of their runs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from cxrssl.analysis.figures import curve_panels, plot_curve
from cxrssl.reporting.content import Block, Charts, Missing, Section, Table
from cxrssl.reporting.pictures import chart
from cxrssl.reporting.runs import Run
from cxrssl.reporting.sections.parts import part_of_each
from cxrssl.reporting.subjects import Subject, Topic
from cxrssl.reporting.text import count

__all__ = ["encoder_line", "run_section"]

_TRAINED = (
    ("trainer", "max_epochs", "Epochs planned"),
    ("trainer", "max_steps", "Steps planned"),
    ("trainer", "precision", "Precision"),
    ("trainer", "accumulate_grad_batches", "Accumulated batches"),
)


def run_section(topic: Topic) -> Section:
    """Return facts and curves of each encoder's run."""
    return Section(
        "run",
        "Encoder and run",
        "What the encoder is, and what its run logged: losses without their weights, probes, "
        "health and learning rate over optimiser steps.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def encoder_line(subject: Subject) -> str:
    """Return what an encoder is in a line."""
    facts = dict(_encoder(subject, None))
    words = [facts["Architecture"], f"{facts['Parameters']} parameters", facts["Image and patch"]]
    if subject.run is not None:
        trained = dict(_training(subject.run))
        words += [trained[name] for name in ("Objective", "Steps logged") if name in trained]
    return " \u00b7 ".join(words)


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    about = topic.results.description["encoders"][subject.name]
    rows = [
        *_encoder(subject, about["fingerprint"]),
        *([] if subject.run is None else _training(subject.run)),
    ]
    blocks: list[Block] = [Table(["Fact", "Value"], rows, "Facts")]
    if subject.run is None:
        return [
            *blocks,
            Missing(
                "No curves: the file does not lie in the folder of a run, beside its config.yaml "
                "and metrics.csv."
            ),
        ]
    panels = curve_panels(subject.run.history)
    if not panels:
        return [*blocks, Missing("No curves: the run has left no metrics.csv with any.")]
    charts = [
        chart(partial(plot_curve, curves, title), f"{title} over optimiser steps.", width=4.2)
        for title, curves in panels.items()
    ]
    return [*blocks, Charts(charts)]


def _encoder(subject: Subject, fingerprint: str | None) -> list[tuple[str, str]]:
    arguments, view = subject.backbone.arguments, subject.encoded.view
    parameters = sum(parameter.numel() for parameter in subject.backbone.parameters())
    patch = getattr(subject.backbone, "patch_size", None)
    said = "" if subject.backbone.normalisation is not None else " (not said by the file)"
    facts = [
        ("Architecture", f"{type(subject.backbone).__name__} {arguments.get('name', '')}".strip()),
        ("Parameters", f"{parameters / 1e6:,.2f} M"),
        ("Width, levels", f"{subject.backbone.embed_dim}, {len(subject.backbone.level_dims)}"),
        ("Image and patch", f"{view.image_size} px" + (f", {patch} px" if patch else "")),
        ("Class token", "yes" if subject.backbone.has_class_token else "no"),
        ("Registers", str(arguments.get("registers") or 0)),
        ("Normalisation", f"mean {_numbers(view.mean)}, std {_numbers(view.std)}{said}"),
        ("Hash of the weights", fingerprint),
    ]
    return [(name, value) for name, value in facts if value is not None]


def _numbers(value: float | Sequence[float]) -> str:
    """Return one number, or that of each channel."""
    values = [value] if isinstance(value, int | float) else value
    return " ".join(f"{each:.4g}" for each in values)


def _training(run: Run) -> list[tuple[str, str]]:
    """Return facts from the settings; none of them is a path."""
    config = run.config
    model, data = (config.get(key) or {} for key in ("model", "data"))
    steps = max((curve[-1][0] for curve in run.history.values() if curve), default=None)
    epochs = run.history.get("epoch")
    facts = [
        ("Objective", _class(model)),
        ("Pretraining data", _class(data)),
        ("Steps logged", None if steps is None else count(steps, "step")),
        ("Epochs logged", None if not epochs else f"{int(epochs[-1][1]) + 1}"),
        ("Batch of each process", (data.get("init_args") or {}).get("batch_size")),
        ("Seed", config.get("seed_everything")),
    ]
    facts += [(name, (config.get(part) or {}).get(key)) for part, key, name in _TRAINED]
    return [(name, str(value)) for name, value in facts if value not in (None, -1, "")]


def _class(settings: dict[str, Any]) -> str:
    return str(settings.get("class_path", "")).rsplit(".", 1)[-1]

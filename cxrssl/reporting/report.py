"""The report card of one encoder or two, from their files to a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import cxrssl
from cxrssl.backbones import Backbone
from cxrssl.data import CXRDataModule
from cxrssl.errors import InputError
from cxrssl.evaluation import EvaluationOptions
from cxrssl.evaluation.encoded import encode_cohort
from cxrssl.evaluation.run import tabulate
from cxrssl.reporting.content import Card
from cxrssl.reporting.landmarks import read_landmarks
from cxrssl.reporting.options import ReportOptions
from cxrssl.reporting.page import render
from cxrssl.reporting.runs import find_run
from cxrssl.reporting.sections import SECTIONS
from cxrssl.reporting.sections.leaks import leak_words
from cxrssl.reporting.sections.probes import headline, method_name, preferred_method
from cxrssl.reporting.sections.run import encoder_line
from cxrssl.reporting.subjects import Subject, Topic, choose_sample
from cxrssl.reporting.tasks import task_run
from cxrssl.reporting.text import count, p_value, with_interval

__all__ = ["Described", "gather", "report_card"]

_MOST = 2
_CHANCE = 0.5


class Described(NamedTuple):
    """An encoder, and the files that it and what stands on it come from."""

    backbone: Backbone
    file: str
    head: str | None = None
    decoder: str | None = None


def report_card(
    encoders: Mapping[str, Described],
    data: CXRDataModule,
    evaluation: EvaluationOptions | None = None,
    options: ReportOptions | None = None,
) -> str:
    """Return the report card of one encoder, or of two side by side, as one HTML page.

    The same encoders, images and options give the same page. It needs nothing but itself, and names
    no file and no patient.

    Args:
        encoders: By the names they have in the page.
        data: Labelled images; its views become those of the encoders.
        evaluation: How features are scored; see :func:`cxrssl.evaluation.evaluate`.
        options: What is shown.

    Raises:
        InputError: If there are more encoders than two, one at several sizes, a file that was given
            does not fit, or as :func:`cxrssl.evaluation.evaluate`.
    """
    topic = gather(encoders, data, evaluation, options)
    made = [section for make in SECTIONS if (section := make(topic)) is not None]
    title = topic.options.title or f"Report card of {' and '.join(encoders)}"
    return render(Card(title, _verdict(topic), _lines(topic), made, _notes(topic)))


def gather(
    encoders: Mapping[str, Described],
    data: CXRDataModule,
    evaluation: EvaluationOptions | None = None,
    options: ReportOptions | None = None,
) -> Topic:
    """Return what the sections of a card are made of; see :func:`report_card`."""
    options = ReportOptions() if options is None else options
    evaluation = EvaluationOptions() if evaluation is None else evaluation
    if len(encoders) > _MOST:
        raise InputError(
            f"a report card shows one encoder or two side by side, got {len(encoders)}: compare "
            "more of them with cxrssl evaluate"
        )
    if evaluation.sizes is not None and len(evaluation.sizes) > 1:
        raise InputError(
            f"a report card shows each encoder at one size, got sizes {evaluation.sizes}"
        )
    _check_files(encoders, data, options)
    backbones = {name: each.backbone for name, each in encoders.items()}
    encoded = encode_cohort(backbones, data, evaluation)
    subjects = [
        Subject(
            of.encoder,
            backbones[of.encoder],
            of,
            each.file,
            # Names such as hf:microsoft/rad-dino lie nowhere.
            find_run(each.file) if Path(each.file).exists() else None,
            each.head,
            each.decoder,
        )
        for of, each in zip(encoded.features, encoders.values(), strict=True)
    ]
    sample = choose_sample(encoded.cohort, options.images, evaluation.seed)
    return Topic(subjects, encoded, tabulate(encoded), options, sample)


def _check_files(
    encoders: Mapping[str, Described], data: CXRDataModule, options: ReportOptions
) -> None:
    """Refuse files that will not do before images are encoded, which may take hours."""
    for each in encoders.values():
        for file in (each.head, each.decoder):
            if file is not None:
                task_run(file)
    if options.landmarks is not None:
        read_landmarks(options.landmarks, data, options.images)


def _verdict(topic: Topic) -> str:
    """Return the card in one or two sentences."""
    leaks = leak_words(topic.results.description["leaks"])
    rows = headline(topic, "auroc").to_dict("records")
    findings = count(len(topic.cohort.findings), "finding")
    patients = count(topic.results.description["data"]["patients"]["test"], "test patient")
    if len(topic.subjects) == 1:
        chance = ", an interval that holds chance" if rows[0]["low"] <= _CHANCE else ""
        return (
            f"{method_name(topic).capitalize()} on frozen features tells {findings} with a macro "
            f"AUROC of {with_interval(rows[0])}{chance}, on {patients}; {leaks}."
        )
    table = topic.results.comparison
    differs = table[(table["finding"] == "macro") & (table["metric"] == "auroc")]
    row = differs[differs["method"] == preferred_method(topic)].iloc[0].to_dict()
    first, second = (subject.name for subject in topic.subjects)
    told = row["low"] > 0 or row["high"] < 0  # not where there is no interval
    side = "ahead of" if row["difference"] > 0 else "behind"
    outcome = (
        f"{first} is {side} {second}" if told else f"{first} and {second} cannot be told apart"
    )
    return (
        f"{outcome}: their macro AUROC over {findings} differs by "
        f"{with_interval(row, 'difference', '+.3f')} (paired bootstrap, p\u00a0=\u00a0"
        f"{p_value(row['p_bootstrap'])}, {patients}); {leaks}."
    )


def _lines(topic: Topic) -> list[str]:
    """Return what each encoder is, in a line."""
    several = len(topic.subjects) > 1
    return [
        f"{subject.name + ': ' if several else ''}{encoder_line(subject)}"
        for subject in topic.subjects
    ]


def _notes(topic: Topic) -> list[str]:
    data = topic.results.description["data"]
    images = ", ".join(f"{n:,} {split}" for split, n in data["images"].items())
    notes = [
        f"{images} images. Made with cxrssl {cxrssl.__version__}, seed "
        f"{topic.encoded.options.seed}; the same inputs make the same page.",
        "For research. Not a medical device: nothing here may be used for diagnosis or treatment.",
    ]
    if not topic.options.no_images:
        notes.append(
            "The pictures are pixels of the images of your own index: share this file as you would "
            "share them. It holds no names of patients or files."
        )
    if data["unreadable"]:
        notes.append(f"{count(data['unreadable'], 'image')} could not be read and are left out.")
    return notes

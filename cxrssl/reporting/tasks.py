"""Tasks on an encoder, from the files of their runs, tested on the images of a card."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from lightning import Trainer
from numpy.typing import NDArray

from cxrssl.errors import InputError
from cxrssl.reporting.runs import Run, find_run, rebuild
from cxrssl.reporting.subjects import Subject, Topic, grey_levels
from cxrssl.tasks import Classification, Segmentation, Task

__all__ = ["HeadResult", "MaskResult", "read_decoder", "read_head", "task_run"]

T = TypeVar("T", bound=Task)

_NOISE = (
    ".*does not have many workers.*",
    ".*LeafSpec.*is deprecated.*",
    "Be aware that when using `ckpt_path`, callbacks.*",  # a test needs none of those of training
)


@dataclass(frozen=True)
class HeadResult:
    """What a GLoRI head says of the images that are shown, and its scores on the test images.

    Attributes:
        findings: The F findings.
        scores: Rows of :func:`~cxrssl.analysis.intervals.score_predictions`.
        images: (m, S, S) in [0, 1].
        attention: (m, heads, F, h, w).
        labels: (m, F).
        probabilities: (m, F).
    """

    findings: list[str]
    scores: pd.DataFrame
    images: NDArray[np.float32]
    attention: NDArray[np.float32]
    labels: NDArray[np.float32]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class MaskResult:
    """Masks of some test images, and scores on all of them.

    Attributes:
        structures: The K structures.
        scores: Rows of :func:`~cxrssl.analysis.dice.summarise_dice`.
        examples: ``image`` (m, S, S), ``truth`` and ``prediction`` (m, K, S, S).
        images: How many were scored.
    """

    structures: list[str]
    scores: pd.DataFrame
    examples: dict[str, NDArray[Any]]
    images: int


def task_run(checkpoint: str) -> Run:
    """Return the run of a task's checkpoint.

    Raises:
        InputError: If there is no such file, or it lies outside the folder of its run.
    """
    if not Path(checkpoint).is_file():
        raise InputError(f"there is no checkpoint {checkpoint}")
    run = find_run(checkpoint)
    if run is None:
        raise InputError(
            f"{checkpoint} does not lie in the folder of its run, whose config.yaml says what it "
            "is: give <run>/checkpoints/last.ckpt"
        )
    return run


def read_head(topic: Topic, subject: Subject) -> HeadResult:
    """Return what the GLoRI head of an encoder says.

    Raises:
        InputError: If the checkpoint is none of such a head on this encoder, or the index lacks a
            finding of it.
    """
    assert subject.head is not None  # asked for only where it is given
    with _tested(topic, subject, Classification, subject.head, cache=None) as task:
        predictions = task.predictions
        shown = topic.data.shown_rows("test")["path"].iloc[predictions["image_number"]].tolist()
        wanted = topic.cohort.rows["path"].iloc[topic.sample]
        places = [shown.index(path) for path in wanted if path in shown]
        views = topic.data.images(predictions["image_number"][places].tolist(), "test")
        return HeadResult(
            task.findings,
            task.results(topic.data).tables["scores"],
            grey_levels(views, task.views),
            task.attention(views),
            predictions["labels"][places],
            predictions["probabilities"][places],
        )


def read_decoder(topic: Topic, subject: Subject) -> MaskResult:
    """Return what the decoder of an encoder outlines.

    Raises:
        InputError: If the checkpoint is none of a segmentation on this encoder, or the index lacks
            masks of its structures.
    """
    assert subject.decoder is not None  # asked for only where it is given
    changes = {"examples": topic.options.images}
    with _tested(topic, subject, Segmentation, subject.decoder, **changes) as task:
        scores = task.results(topic.data).tables["scores"]
        images = len(task.predictions["image_number"])
        return MaskResult(task.structures, scores, task.examples, images)


@contextmanager
def _tested(
    topic: Topic, subject: Subject, kind: type[T], checkpoint: str, **changes: Any
) -> Iterator[T]:
    """Give a task that has been tested on the images of the card, which show its targets."""
    task = rebuild(task_run(checkpoint), kind, encoder=subject.file, **changes)
    data, views = topic.data, topic.data.views
    data.views = task.views
    trainer = Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        devices=1,
    )
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message=message)
            trainer.test(
                task, datamodule=data, ckpt_path=checkpoint, verbose=False, weights_only=True
            )
        yield task.cpu()
    finally:
        data.views, data.trainer = views, None

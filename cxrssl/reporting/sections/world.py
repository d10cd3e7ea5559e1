"""Whether a checkpoint with a predictor is a world model."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cxrssl.analysis.world import WorldMeasures, measure_world, world_headlines, world_table
from cxrssl.analysis.world_figures import fill_in_panels
from cxrssl.analysis.world_model import PredictsWorld, as_world
from cxrssl.analysis.world_panels import plot_domain, plot_layout, plot_retrieval
from cxrssl.backbones.weights import read_weights
from cxrssl.data import CXRDataModule
from cxrssl.data.image import ImageReadError
from cxrssl.errors import InputError
from cxrssl.objectives import Objective
from cxrssl.reporting.content import (
    Block,
    Charts,
    Fold,
    Gallery,
    NotShownError,
    Picture,
    Section,
    Table,
)
from cxrssl.reporting.pictures import chart, picture
from cxrssl.reporting.runs import Run, rebuild
from cxrssl.reporting.sections.parts import part_of_each
from cxrssl.reporting.subjects import Subject, Topic
from cxrssl.reporting.text import with_interval

__all__ = ["world_section"]

_EXAMPLES = 3
_PANELS = ("original", "seen", "filled in")


def world_section(topic: Topic) -> Section:
    """Return the three measures of a world model, where an encoder has a predictor."""
    return Section(
        "world",
        "World model",
        "Whether the predictor knows what a distortion does to an image, what lies elsewhere in it "
        "and what is masked: with what it is told against what it predicts when told something "
        "else, or from another image. Whiskers are 95 % intervals over images.",
        part_of_each(topic, partial(_blocks, topic)),
    )


def _blocks(topic: Topic, subject: Subject) -> Sequence[Block]:
    if subject.run is None or subject.run.checkpoint is None:
        raise NotShownError(
            "the encoder's file lies in no run folder with a whole checkpoint, so that there is no "
            "predictor."
        )
    model = _world(subject.run)
    images = _read(topic.data, topic.cohort.rows.iloc[topic.cohort.places("test")],
                   topic.options.world_images)  # fmt: skip
    measured = measure_world(model, images, seed=topic.encoded.options.seed)
    blocks: list[Block] = [
        Charts(_charts(measured), "wide"),
        Fold("All conditions", [_table(measured)]),
    ]
    if measured.local.examples and not topic.options.no_images:
        blocks.append(Gallery(_examples(measured)))
    return blocks


def _world(run: Run) -> PredictsWorld:
    """Return the world model of a run, also as one of several objectives.

    Raises:
        NotShownError: If it has none.
    """
    try:
        objective = rebuild(_without_files(run), Objective)  # type: ignore[type-abstract]
    except InputError as error:
        # Its text may name files, and nobody has asked for a world model.
        raise NotShownError("the settings of its run build no objective here.") from error
    members = [objective, *getattr(objective, "children_by_name", {}).values()]
    found = [world for member in members if (world := as_world(member)) is not None]
    if not found:
        raise NotShownError(f"{type(objective).__name__} has no predictor of patches.")
    state, _ = read_weights(str(run.checkpoint))
    try:
        objective.load_state_dict(state)
    except RuntimeError as error:
        raise NotShownError("the checkpoint does not fit the settings of its run.") from error
    objective.eval()
    if torch.cuda.is_available():
        objective.cuda()
    return found[0]


def _without_files(run: Run) -> Run:
    """Return a run whose settings load no weights, which its checkpoint has anyway."""

    def clear(settings: Any) -> Any:
        if isinstance(settings, dict):
            kept = {key: clear(value) for key, value in settings.items()}
            return kept | {key: None for key in ("weights", "init_from") if _is_file(kept, key)}
        return [clear(value) for value in settings] if isinstance(settings, list) else settings

    return Run(clear(run.config), run.history, run.checkpoint)


def _is_file(settings: dict[str, Any], key: str) -> bool:
    return isinstance(settings.get(key), str)


def _read(data: CXRDataModule, rows: Any, count: int) -> list[NDArray[np.uint8]]:
    """Return evenly spaced images, without those that cannot be read."""
    source, images = data.shown_source(rows), []
    for number in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int).tolist():
        try:
            images.append(source[number])
        except ImageReadError:
            continue
    return images


def _charts(measured: WorldMeasures) -> list[Picture]:
    draws = (
        (partial(plot_domain, measured.domain), "Recall of the right version of an image."),
        (partial(plot_layout, measured.layout), "Error against the distance to what is seen."),
        (partial(plot_retrieval, measured.layout, measured.local), "Accuracy of the right patch."),
    )
    return [chart(draw, alt, width=5.0, height=3.9) for draw, alt in draws]


def _table(measured: WorldMeasures) -> Table:
    rows = [
        [
            f"{row['task']}: {row['condition']}",
            str(row["measure"]),
            with_interval(row),
            f"{row['chance']:.3f}",
            f"{row['images']:,}",
        ]
        for row in world_headlines(world_table(*measured)).to_dict("records")
    ]
    caption = "How often the right one was found, with 95 % intervals over images"
    return Table(["Task: told", "Measure", "Value", "Chance", "Images"], rows, caption)


def _examples(measured: WorldMeasures) -> list[tuple[str, list[Picture]]]:
    rows = []
    for number, example in enumerate(measured.local.examples[:_EXAMPLES]):
        panels = zip(_PANELS, fill_in_panels(example), strict=True)
        pictures = [
            picture(partial(_show, panel), f"Example {number + 1}, {name}.", name)
            for name, panel in panels
        ]
        rows.append((f"Example {number + 1}", pictures))
    return rows


def _show(panel: NDArray[np.float64], axes: Any) -> None:
    axes.imshow(panel)
    axes.set_axis_off()

import re
from dataclasses import replace

import numpy as np
import pytest

from cxrssl.analysis import domain_sensitivity, layout_awareness, local_structure, plot_world
from tests.analysis.worlds import Collapsed, Oracle, world_image

IMAGES = [world_image(first) for first in range(0, 200, 40)]
LARGE = [world_image(first, side=8) for first in range(0, 200, 40)]


def figure(model=Oracle, examples=3, images=IMAGES, large=LARGE, versions=True):
    domain = domain_sensitivity(model(), images, candidates=8, seed=1)
    return plot_world(
        domain if versions else None,
        layout_awareness(model(row=8), large, pairs=6),
        local_structure(model(), images, examples=examples),
    )


def legend(axes):
    return {text.get_text() for text in axes.get_legend().get_texts()}


def test_panels_show_the_measures():
    axes = figure().get_axes()
    titles = [each.get_title(loc="left") for each in axes[:3]]
    assert [title[0] for title in titles] == ["a", "b", "c"]
    heights = [bar.get_height() for bar in axes[0].containers[0]]
    assert heights == [1, 1, 1]  # an oracle that is told the action
    assert legend(axes[0]) == {"chance", "true action", "identity action", "other action"}
    lines = {line.get_label(): line.get_ydata() for line in axes[1].lines}
    assert set(lines["offset"]) == {0.0}
    assert set(lines) >= {"other offset", "other image", "position alone", "mean token"}
    assert min(lines["other offset"]) > 0
    assert min(lines["other image"]) > 0
    assert "own frame" not in lines
    shown = {"masked", "other image", "offset", "other offset", "position alone", "chance"}
    assert legend(axes[2]) == shown


def test_gains_have_their_interval():
    labels = [each.get_text().splitlines()[-1] for each in figure().get_axes()[2].get_xticklabels()]
    assert len(labels) == 3
    for label in labels:
        assert re.fullmatch(r"[+-]\d+\.\d \(-?\d+\.\d to -?\d+\.\d\)", label)


def test_bands_need_images():
    few = figure(large=LARGE[:3]).get_axes()[1]
    assert [line.get_label() for line in few.lines[:3]] == ["offset", "other offset", "other image"]
    assert all(len(line.get_xdata()) for line in few.lines[:3])
    bands = [band for band in few.collections if np.isfinite(band.get_datalim(few.transData)).any()]
    assert not bands


def test_curves_leave_out_places_that_few_images_have():
    layout = layout_awareness(Oracle(row=8), LARGE, pairs=6)
    binned = layout.by_distance
    images = np.full_like(binned.images, 5)
    images[1] = 4  # many patches, but of too few images
    layout = replace(layout, by_distance=replace(binned, images=images))
    local = local_structure(Oracle(), IMAGES, examples=0)
    lines = plot_world(None, layout, local).get_axes()[1].lines
    centres = (binned.edges[:-1] + binned.edges[1:]) / 2
    for line in lines[:5]:
        np.testing.assert_array_equal(line.get_xdata(), np.delete(centres, 1))


def test_examples_show_what_is_hidden():
    axes = figure().get_axes()[3:]
    assert len(axes) == 2 * 7  # two rows, a gap in the middle of each
    panels = [each.images[0].get_array() for each in axes if each.images]
    assert len(panels) == 3 * 3
    original, seen, filled = panels[:3]
    np.testing.assert_allclose(original[..., 0], IMAGES[0] / 255)
    assert (seen != original).any()
    hidden = (seen == filled).all(-1)
    assert (~hidden).sum() == 3 * 9  # three masked patches of 3 x 3 pixels are filled in


@pytest.mark.parametrize(
    "options",
    [
        {"images": IMAGES[:2], "large": LARGE[:2]},
        {"model": Collapsed},
        {"versions": False},
        {"examples": 0},
    ],
)
def test_can_be_written_whatever_there_is(tmp_path, options):
    figure(**options).savefig(tmp_path / "world.png")
    assert (tmp_path / "world.png").read_bytes().startswith(b"\x89PNG")


def test_what_was_not_measured_says_why():
    axes = figure(versions=False).get_axes()[0]
    assert "change no grey values" in axes.texts[0].get_text()

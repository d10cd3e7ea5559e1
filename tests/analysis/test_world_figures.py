import numpy as np
import pytest

from cxrssl.analysis import domain_sensitivity, layout_awareness, local_structure, plot_world
from tests.analysis.worlds import Collapsed, Oracle, world_image

IMAGES = [world_image(first) for first in range(0, 200, 40)]
LARGE = [world_image(first, side=8) for first in (0, 50, 100)]


def figure(model=Oracle, examples=3, images=IMAGES):
    return plot_world(
        domain_sensitivity(model(), images, candidates=8, seed=1),
        layout_awareness(model(row=8), LARGE, pairs=6),
        local_structure(model(), images, examples=examples),
    )


def test_panels_show_the_measures():
    axes = figure().get_axes()
    titles = [each.get_title(loc="left") for each in axes[:3]]
    assert [title[0] for title in titles] == ["a", "b", "c"]
    heights = [bar.get_height() for bar in axes[0].containers[0]]
    assert heights == [1, 1, 1]  # an oracle that is told the action
    labels = axes[0].get_legend_handles_labels()[1]
    assert set(labels) == {"chance", "true action", "no action", "other action"}
    lines = {line.get_label(): line.get_ydata() for line in axes[1].lines}
    assert set(lines["offset"]) == {0.0}
    assert min(lines["no offset"]) > 0


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


@pytest.mark.parametrize(("model", "images"), [(Oracle, IMAGES[:1]), (Collapsed, IMAGES)])
def test_can_be_written_whatever_there_is(tmp_path, model, images):
    figure(model, images=images).savefig(tmp_path / "world.png")
    assert (tmp_path / "world.png").read_bytes().startswith(b"\x89PNG")

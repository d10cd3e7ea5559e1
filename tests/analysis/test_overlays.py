import numpy as np
import pytest

from cxrssl.analysis.overlays import plot_overlays
from cxrssl.errors import InputError


def example():
    """Return two images of two structures: predictions shifted by two rows, and none."""
    images = np.random.default_rng(0).random((2, 16, 20))
    truth = np.zeros((2, 2, 16, 20), dtype=np.uint8)
    truth[0, 0, 4:10, 5:15] = 1
    prediction = np.roll(truth, 2, 2).astype(bool)
    truth[0, 1, :3] = 255
    truth[1, 0] = 1  # the whole image, which has no border within
    return images, truth, prediction


def panels(figure):
    return np.array(figure.axes).reshape(2, 3)


def drawn_colours(axes):
    return [tuple(np.round(c.get_edgecolor()[0][:3], 2)) for c in axes.collections]


def test_a_row_an_image_and_a_column_a_structure():
    images, truth, prediction = example()
    figure = plot_overlays(images, truth, prediction, ["lung", "tube"], ["first", "second"])
    axes = panels(figure)
    assert [each.get_title() for each in axes[0]] == ["radiograph", "lung", "tube"]
    assert [each.get_ylabel() for each in axes[:, 0]] == ["first", "second"]
    for row in range(2):
        for each in axes[row]:
            np.testing.assert_array_equal(each.images[0].get_array(), images[row])
    assert [each.texts[0].get_text() for each in axes[:, 1:].ravel()] == [
        "Dice 0.67",  # 4 of 6 rows
        "Dice 1.00",
        "Dice 0.00",
        "Dice 1.00",
    ]


def test_errors_are_filled_and_agreement_is_not():
    images, truth, prediction = example()
    axes = panels(plot_overlays(images, truth, prediction, ["lung", "tube"]))
    fill = axes[0, 1].images[1].get_array()
    assert (fill[4:6, 5:15, 1] > fill[4:6, 5:15, 0]).all()  # false negatives, green
    assert (fill[10:12, 5:15, 0] > fill[10:12, 5:15, 1]).all()  # false positives, red
    assert (fill[6:10, 5:15, 3] == 0).all()
    unknown = axes[0, 2].images[1].get_array()[..., 3] > 0
    np.testing.assert_array_equal(unknown, truth[0, 1] == 255)


def test_outlines_are_green_and_red_and_closed_at_the_border_of_the_image():
    images, truth, prediction = example()
    figure = plot_overlays(images, truth, prediction, ["lung", "tube"])
    figure.canvas.draw()
    axes = panels(figure)
    green, red = (0.13, 0.77, 0.37), (0.94, 0.27, 0.27)
    assert drawn_colours(axes[0, 1]) == [green, red]
    assert drawn_colours(axes[0, 2]) == []
    assert drawn_colours(axes[1, 1]) == [green]
    (path,) = axes[1, 1].collections[0].get_paths()
    np.testing.assert_allclose(path.get_extents().get_points(), [[-0.5, -0.5], [19.5, 15.5]])
    assert axes[1, 1].get_xlim() == (-0.5, 19.5)


def test_unknown_is_in_the_legend_where_it_is_in_the_figure():
    images, truth, prediction = example()
    for first, expected in ((0, True), (1, False)):
        figure = plot_overlays(images[first:], truth[first:], prediction[first:], ["lung", "tube"])
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels[:4] == ["truth", "prediction", "false negative", "false positive"]
        assert ("unknown" in labels) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((2, 8, 8))},
        {"names": ["lung"]},
        {"captions": ["first"]},
        {"prediction": np.zeros((2, 1, 16, 20), dtype=bool)},
    ],
)
def test_what_does_not_belong_together_is_refused(change):
    images, truth, prediction = example()
    arguments = {
        "images": images,
        "truth": truth,
        "prediction": prediction,
        "names": ["lung", "tube"],
    }
    with pytest.raises(InputError, match="none empty, with K names"):
        plot_overlays(**(arguments | change))

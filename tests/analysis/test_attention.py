import numpy as np
import pytest

from cxrssl.analysis.attention import plot_attention
from cxrssl.errors import InputError

NAMES = ["Edema", "Effusion", "Nodule"]


def example(n=2, heads=4, side=3):
    rng = np.random.default_rng(0)
    attention = rng.random((n, heads, len(NAMES), side, side))
    attention /= attention.sum((3, 4), keepdims=True)
    return {
        "images": rng.random((n, 12, 12)),
        "attention": attention,
        "names": NAMES,
        "labels": np.array([[1, 0, np.nan], [0, 1, -1]])[:n],
        "probabilities": rng.random((n, len(NAMES))),
    }


def drawn(**changes):
    return plot_attention(**{**example(), **changes})


def test_a_row_an_image_and_a_column_a_finding():
    given = example()
    figure = drawn()
    assert len(figure.axes) == 2 * 4
    for row in range(2):
        axes = figure.axes[4 * row : 4 * row + 4]
        np.testing.assert_array_equal(axes[0].images[0].get_array(), given["images"][row])
        for column, name in enumerate(NAMES):
            probability = given["probabilities"][row, column]
            assert axes[1 + column].get_title() == f"{name} {probability:.2f}"


def test_what_is_known_to_be_there_is_bold():
    titles = [axes.title for axes in drawn().axes if axes.get_title()]
    assert [title.get_fontweight() for title in titles] == [
        *("bold", "normal", "normal"),
        *("normal", "bold", "normal"),
    ]
    colours = {title.get_color() for title in titles if title.get_fontweight() == "bold"}
    assert colours == {"#2f855a"}


def test_maps_are_means_over_heads_and_shown_at_the_power_of_a_half():
    attention = np.zeros((1, 2, 1, 2, 2))
    attention[0, 0, 0, 0, 0] = 0.5
    attention[0, 1, 0, 0, 0] = 0.22
    attention[0, :, 0, 1, 1] = 0.01
    figure = plot_attention(
        np.zeros((1, 8, 8)),
        attention,
        ["Nodule"],
        labels=np.ones((1, 1)),
        probabilities=np.ones((1, 1)),
    )
    heat = figure.axes[1].images[1]
    assert heat.get_array().shape == (8, 8)
    assert heat.get_array()[0, 0] == pytest.approx(0.6)
    assert heat.get_array()[7, 7] == pytest.approx(0.1)
    assert heat.get_clim() == pytest.approx((0.0, 0.6))


def test_can_be_written(tmp_path):
    drawn().savefig(tmp_path / "attention.png")
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": np.zeros((2, 4, 2, 3, 3))},
        {"attention": np.zeros((3, 4, 3, 3, 3))},
        {"attention": np.zeros((2, 3, 3, 3))},
        {"images": np.zeros((0, 12, 12)), "attention": np.zeros((0, 4, 3, 3, 3))},
        {"labels": np.zeros((2, 2))},
        {"probabilities": np.zeros((3, 3))},
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(changes):
    with pytest.raises(InputError, match=r"attention must be \(images, heads, findings, h, w\)"):
        drawn(**changes)

"""Parts of a card on their own: landmarks, runs, numbers in words."""

import math

import pandas as pd
import pytest
import torch

from cxrssl.errors import InputError
from cxrssl.objectives import Objective
from cxrssl.reporting import ReportOptions
from cxrssl.reporting.landmarks import in_view, read_landmarks
from cxrssl.reporting.runs import Run, find_run, rebuild
from cxrssl.reporting.text import count, interval, p_value, with_interval
from cxrssl.views import EvalView
from tests.evaluation.stand_ins import data_of, make_index


@pytest.fixture
def data(tmp_path):
    return data_of(make_index(tmp_path), tmp_path)


def landmarks(data, tmp_path, rows, columns=("image", "name", "x", "y")):
    path = tmp_path / "points.csv"
    pd.DataFrame(rows, columns=list(columns)).to_csv(path, index=False)
    return read_landmarks(str(path), data, 2)


def test_images_are_named_by_path_or_row(data, tmp_path):
    path = str(data.index["path"].iloc[5])
    rows = [(path, "a", 1, 2), (1, "a", 3, 4), (1, "b", 5, 6), (9, "a", 7, 8)]
    found = landmarks(data, tmp_path, rows)
    assert found.rows.index.tolist() == [5, 0]  # no more than two
    assert found.points == [{"a": (1, 2)}, {"a": (3, 4), "b": (5, 6)}]
    assert found.names == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("nowhere.png", "a", 1, 2)], r"no image 'nowhere.png' \(row 1\).*a number from 1 to 144"),
        ([(145, "a", 1, 2)], "no image '145'"),
        ([(1, "a", 1, 2), (1, "b", "left", 2)], "x or y is no number in row 2"),
        ([], "must have the columns image, name, x, y"),
    ],
)
def test_landmarks_that_cannot_be_used_are_refused(data, tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        landmarks(data, tmp_path, rows)


def test_a_table_without_a_column_or_a_file_is_refused(data, tmp_path):
    with pytest.raises(InputError, match="it lacks y"):
        landmarks(data, tmp_path, [(1, "a", 1)], ["image", "name", "x"])
    with pytest.raises(InputError, match=r"nowhere.csv is no CSV file"):
        read_landmarks("nowhere.csv", data, 2)


def test_points_follow_resize_and_crop():
    view = EvalView(image_size=32, resize=40)
    image = torch.zeros(60, 80, dtype=torch.uint8).numpy()
    image[30:32, 50:52] = 255
    seen = view(image)["image"][0]
    row, column = divmod(int(seen.argmax()), 32)
    x, y = in_view((51, 31), (60, 80), view)
    assert (int(x * 32), int(y * 32)) == (column, row)
    assert in_view((1, 31), (60, 80), view) is None


def test_a_file_outside_a_run_has_none(tmp_path):
    assert find_run(tmp_path / "encoder.safetensors") is None
    (tmp_path / "config.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"config.yaml is no YAML"):
        find_run(tmp_path / "encoder.safetensors")
    (tmp_path / "config.yaml").write_text("model: {}")
    run = find_run(tmp_path / "checkpoints" / "encoder.safetensors")
    assert (run.history, run.checkpoint) == ({}, None)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "name no model"),
        ({"class_path": "Nonsense"}, "build no Objective"),
        ({"class_path": "DINOv2", "init_args": {"nonsense": 1}}, "build no Objective"),
    ],
)
def test_settings_that_build_nothing_are_refused(model, message):
    with pytest.raises(InputError, match=message):
        rebuild(Run({"model": model}, {}, None), Objective)


def test_numbers_in_words():
    row = {"value": 0.5, "difference": -0.25, "low": -0.5, "high": 0.75}
    assert with_interval(row) == "0.500 [\u22120.500, 0.750]"
    assert with_interval(row, "difference", "+.2f") == "\u22120.25 [\u22120.50, +0.75]"
    assert with_interval(row | {"value": -0.0001}).startswith("0.000 [")
    assert interval(row) == "\u22120.500 to 0.750"
    nothing = {"value": 0.5, "low": math.nan, "high": math.nan}
    assert with_interval(nothing) == "0.500 [no interval]"
    assert interval(nothing) == ""
    assert (p_value(math.nan), p_value(0.0213)) == ("-", "0.021")
    assert (count(1, "image"), count(1200, "image")) == ("1 image", "1,200 images")


@pytest.mark.parametrize("wrong", [{"images": 1}, {"neighbours": 0}, {"world_images": 1}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="must be at least"):
        ReportOptions(**wrong)

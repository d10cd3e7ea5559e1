import numpy as np
import pandas as pd
import pytest
import torch

from cxrssl.data.index import load_index
from cxrssl.data.targets import TargetTable, check_targets, labelled
from cxrssl.data.validate import COLUMNS, label_names, validate_index
from cxrssl.errors import InputError
from cxrssl.views.targets import Targets

TABLE = pd.DataFrame(
    {
        "path": ["a.png", "b.png", "c.png"],
        "mask/heart": ["a_m.png", "", "-1"],
        "Nodule": ["1", "", "0"],
        "text": ["No effusion.", " ", "NA"],
        "bmi": ["24.5", "NA", ""],
        "weight": ["70", "", "91.5"],
        "Edema": ["0", "", "-1"],
        "note": ["x", "y", "z"],
    }
)
KNOWN = [*COLUMNS, "weight", "bmi", "mask/heart", "text"]


def write(table, folder, kind):
    path = folder / f"index.{kind}"
    if kind == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return str(path)


def assert_optional(index):
    assert sorted(index.columns[: len(KNOWN)]) == sorted(KNOWN)
    assert label_names(index) == ["Nodule", "Edema"]
    np.testing.assert_array_equal(index["weight"], np.array([70, np.nan, 91.5], np.float32))
    np.testing.assert_array_equal(index["bmi"], np.array([24.5, np.nan, np.nan], np.float32))
    assert index["text"].tolist() == ["No effusion.", pd.NA, pd.NA]
    assert index["mask/heart"].tolist() == ["a_m.png", pd.NA, "-1"]
    pd.testing.assert_frame_equal(validate_index(index), index)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_optional_columns_are_known_and_no_labels(tmp_path, kind):
    assert_optional(load_index(write(TABLE, tmp_path, kind)))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_optional_columns_under_other_names(tmp_path, kind):
    names = {"mask/heart": "Heart", "text": "findings", "bmi": "BMI", "weight": "kg"}
    path = write(TABLE.rename(columns=names), tmp_path, kind)
    assert_optional(load_index(path, columns=names))
    index = load_index(path)
    assert [name for name in index if name not in COLUMNS] == ["Nodule", "Edema"]


def test_parquet_keeps_numbers_and_missing_values(tmp_path):
    table = TABLE.assign(
        **{
            "weight": [70, np.nan, 91.5],
            "text": ["No effusion.", None, None],
            "Nodule": [1, None, 0],
        }
    )
    table["mask/heart"] = ["a_m.png", None, "-1"]
    assert_optional(load_index(write(table, tmp_path, "parquet")))
    runs = validate_index(pd.DataFrame({"path": ["a", "b"], "mask/lungs": [-1, np.nan]}))
    assert runs["mask/lungs"].tolist() == ["-1", pd.NA]


def test_labels_are_those_of_an_index_without_optional_columns(tmp_path):
    whole = load_index(write(TABLE, tmp_path, "csv"))
    plain = TABLE.drop(columns=["mask/heart", "text", "bmi", "weight"])
    index = load_index(write(plain, tmp_path, "csv"))
    assert index.columns.tolist() == [*COLUMNS, "Nodule", "Edema"]
    pd.testing.assert_frame_equal(whole[index.columns], index)


def test_a_label_with_the_name_of_a_known_column(tmp_path):
    path = write(TABLE.assign(weight=["1", "", "0"], kg=["70", "80", ""]), tmp_path, "csv")
    for labels in (None, ["heavy"]):
        index = load_index(path, columns={"heavy": "weight", "weight": "kg"}, labels=labels)
        np.testing.assert_array_equal(index["heavy"], [1, np.nan, 0])
        np.testing.assert_array_equal(index["weight"], [70, 80, np.nan])
        assert "heavy" in label_names(index)
    with pytest.raises(InputError, match=r"labels names 'weight'.*columns=\{'my_weight': 'weight'"):
        load_index(path, labels=["Nodule", "weight"])


def test_a_column_may_go_by_two_known_names(tmp_path):
    index = load_index(write(TABLE, tmp_path, "csv"), columns={"study_id": "path"})
    assert index["study_id"].tolist() == TABLE["path"].tolist()


def test_a_measure_that_is_no_number():
    frame = pd.DataFrame({"path": ["a"], "bmi": ["high"]})
    with pytest.raises(InputError, match=r"column 'bmi' is 'high' in row 1 \(a\): a number"):
        validate_index(frame)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Targets(findings=("Nodule", "Mass")), r"no label 'Mass'; it has 'Nodule', 'Edema'$"),
        (
            Targets(structures=("lungs", "rib")),
            r"no mask 'lungs', 'rib'; it has 'heart', 'aorta'$",
        ),
    ],
)
def test_what_is_missing_is_named_with_what_there_is(targets, message):
    index = validate_index(TABLE.drop(columns="note"))
    with pytest.raises(InputError, match=f"^the index has {message}"):
        check_targets(index, targets, ["heart", "aorta"])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Targets(findings=("Mass",)), r"no label 'Mass'; it has none; .* with data\.labels$"),
        (Targets(structures=("lungs",)), r"no mask 'lungs'; it has none; .* 'mask/<structure>'"),
        (Targets(text=True), r"no column 'text' .*: map it with data\.columns="),
    ],
)
def test_an_index_of_images_alone_is_told_what_it_needs(targets, message):
    index = validate_index(pd.DataFrame({"path": ["a.png"]}))
    with pytest.raises(InputError, match=f"^the index has {message}"):
        check_targets(index, targets, [])


def test_a_long_list_of_labels_is_cut():
    index = validate_index(pd.DataFrame({"path": ["a"], **{f"F{i}": [1] for i in range(30)}}))
    with pytest.raises(InputError, match=r"'F18', 'F19', \.\.\.$"):
        check_targets(index, Targets(findings=("Mass",)), [])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (Targets(), [True, True, True]),
        (Targets(findings=("Nodule",)), [True, False, True]),
        (Targets(findings=("Nodule", "Edema")), [True, False, True]),
        (Targets(findings=("Nodule",), text=True), [True, False, False]),
        (Targets(text=True), [True, False, False]),
    ],
)
def test_images_with_any_label_and_the_report_are_labelled(targets, expected):
    index = validate_index(TABLE.drop(columns="note"))
    assert labelled(index, targets).tolist() == expected


def test_targets_of_a_batch_in_the_order_wanted():
    index = validate_index(TABLE.drop(columns="note"))
    table = TargetTable(index, Targets(findings=("Edema", "Nodule"), text=True))
    batch = table.of(np.array([2, 0, 2]), np.array([True, True, False]))
    expected = torch.tensor([[-1.0, 0], [0, 1], [torch.nan, torch.nan]])
    torch.testing.assert_close(batch["labels"], expected, equal_nan=True, rtol=0, atol=0)
    assert batch["text"] == [None, "No effusion.", None]
    # An image that could not be read once has its labels the next time.
    assert table.of(np.array([2]), np.array([True]))["labels"].tolist() == [[-1.0, 0]]
    assert table.masks(0, (4, 4)) is None
    assert TargetTable(index, Targets()).of(np.array([0]), np.array([True])) == {}

import os

import numpy as np
import pandas as pd
import pytest

from cxrssl.data.index import load_index
from cxrssl.data.validate import COLUMNS, label_names, validate_index
from cxrssl.errors import InputError


def write_csv(tmp_path, text):
    path = tmp_path / "index.csv"
    path.write_text(text)
    return str(path)


def test_csv_keeps_identifiers_and_orders_columns(tmp_path):
    index = load_index(
        write_csv(
            tmp_path,
            "Nodule,path,patient_id,age,note,split,Edema\n"
            "1,a/1.png,007,61,seen,Training,\n"
            "-1.0,a/2.png,1e5,,NA,dev,0\n",
        )
    )
    assert index.columns.tolist() == [*COLUMNS, "Nodule", "Edema"]
    assert index["patient_id"].tolist() == ["007", "1e5"]
    assert index["split"].tolist() == ["train", "val"]
    assert index["path"].tolist() == [str(tmp_path / "a/1.png"), str(tmp_path / "a/2.png")]
    assert index["Nodule"].dtype == index["age"].dtype == np.float32
    np.testing.assert_array_equal(index["Edema"], [np.nan, 0])
    np.testing.assert_array_equal(index["age"], [61, np.nan])
    assert index["study_id"].isna().all()


def test_canonical_form_is_a_fixed_point_and_survives_parquet(tmp_path):
    frame = pd.DataFrame(
        {
            "path": ["b.png", "a.png", "c.png"],
            "patient_id": [12.0, np.nan, 3.0],  # whole numbers beside a missing one
            "study_id": [1, 2, 3],
            "lesion": [True, False, True],
            "never_read": [np.nan] * 3,
        }
    )
    index = validate_index(frame)
    assert index["patient_id"].tolist() == ["12", pd.NA, "3"]
    assert label_names(index) == ["lesion", "never_read"]
    pd.testing.assert_frame_equal(validate_index(index), index)
    index.to_parquet(tmp_path / "index.parquet")
    labels = ["lesion", "never_read"]
    again = load_index(tmp_path / "index.parquet", root="/x", labels=labels, dataset="mine")
    assert again["path"].tolist() == ["/x/b.png", "/x/a.png", "/x/c.png"]
    assert set(again["dataset"]) == {"mine"}
    same = [name for name in index if name not in ("path", "dataset")]
    pd.testing.assert_frame_equal(again[same], index[same])


def test_root_leaves_absolute_paths_alone(tmp_path):
    index = load_index(write_csv(tmp_path, "path\n/far/1.png\n2.png\n"), root="/near")
    assert index["path"].tolist() == ["/far/1.png", "/near/2.png"]


def test_columns_map_our_names_to_the_file_s(tmp_path):
    path = write_csv(tmp_path, "\ufeff File ,Pat,Unnamed: 3,Pleural Effusion,gone\na.png,1,0,1,2\n")
    index = load_index(
        path, columns={"path": "File", "patient_id": "Pat", "effusion": "Pleural Effusion"}
    )
    assert index.columns.tolist() == [*COLUMNS, "effusion"]
    assert index.loc[0, "effusion"] == 1
    chosen = load_index(
        path,
        columns={"path": "File", "effusion": "Pleural Effusion"},
        labels=["effusion", "Unnamed: 3"],
    )
    assert label_names(chosen) == ["effusion", "Unnamed: 3"]


def test_folder_is_searched_in_order(tmp_path):
    for name in ("b/2.png", "b/10.PNG", "a.jpg", "notes.txt", "b/.hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b" / "up")
    index = load_index(tmp_path)
    expected = ["a.jpg", "b/10.PNG", "b/2.png"]
    assert index["path"].tolist() == [str(tmp_path / name) for name in expected]
    pattern = load_index(f"{tmp_path}/b/*.png")
    assert pattern["path"].tolist() == [str(tmp_path / "b/2.png")]


def test_one_patient_number_in_two_data_sets_is_two_patients():
    frame = pd.DataFrame({"path": ["a", "b"], "dataset": ["X", "Y"], "patient_id": ["1", "1"]})
    assert len(validate_index(frame.assign(split=["train", "test"]))) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["a"]}, r"no column 'path', only \['file'\]"),
        ({"path": []}, "no rows"),
        ({"path": ["a", None]}, "row 2 of the index has no path"),
        ({"path": ["a", "b", "a", "b"]}, r"'a' stands in rows 1 and 3 .*2 repeated rows"),
        ({"path": ["a", "b"], "x": [1, 2]}, r"label 'x' is (np.int64\()?2\)? in row 2 \(b\)"),
        ({"path": ["a", "b"], "x": ["yes", ""]}, r"column 'x' is 'yes' in row 1 \(a\): a number"),
        ({"path": ["a"], "age": ["058Y"]}, "column 'age' is '058Y' in row 1"),
        ({"path": ["a"], "split": ["holdout"]}, r"row 1 \(a\) is 'holdout': use one of train, tr"),
        ({"path": ["a", "b"], "split": ["test", ""]}, r"the split in row 2 \(b\) is ''"),
    ],
)
def test_wrong_rows_are_named(columns, message):
    with pytest.raises(InputError, match=message):
        validate_index(pd.DataFrame(columns))


def test_patient_in_two_splits_is_an_error():
    patients = [f"P{i}" for i in range(5)] * 2
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(10)], "patient_id": patients})
    frame["split"] = ["train"] * 5 + ["test", "val", "test", "test", "train"]
    message = (
        r"4 patients .* 'P0' \(train and test\), 'P1' \(train and val\), "
        r"'P2' \(train and test\): put"
    )
    with pytest.raises(InputError, match=message):
        validate_index(frame)


def test_two_columns_of_one_name_are_an_error():
    frame = pd.DataFrame([["a", 1, 0]], columns=["path", "x", "x"])
    with pytest.raises(InputError, match="more than one column named 'x'"):
        validate_index(frame)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"path": "jpg"}}, r"no column 'jpg', which columns maps to 'path'; .*'file'"),
        ({"columns": {"path": "file"}, "labels": ["Mass"]}, "'Mass', which labels asks for"),
        ({}, r"index.csv: the index has no column 'path'"),
    ],
)
def test_wrong_names_list_what_there_is(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        load_index(write_csv(tmp_path, "file,x\na.png,1\n"), **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such file or folder"),
        ("index.xlsx", b"", r"a folder, a pattern, a \.csv or a \.parquet"),
        ("index.csv", b"", "cannot be read as a table"),
        ("index.csv", b'path\n"a', "cannot be read as a table"),
        ("index.csv", b"path\n\xff\xfe", "cannot be read as a table"),
        ("index.parquet", b"path", "cannot be read as a table"),
        ("*.png", None, "matches no file"),
    ],
)
def test_unreadable_sources_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_index(tmp_path / name)


def test_folder_finds_dicom_files_by_their_content(tmp_path):
    (tmp_path / "1.2.840.10008").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "notes").write_text("nothing")
    assert [os.path.basename(p) for p in load_index(str(tmp_path))["path"]] == ["1.2.840.10008"]


def test_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no image \(.*\.png"):
        load_index(tmp_path)

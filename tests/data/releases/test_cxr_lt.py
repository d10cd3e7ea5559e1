import pytest

from cxrssl.data.releases.cxr_lt import CXRLT2023, CXRLT2024
from cxrssl.errors import InputError
from tests.data.releases.mimic_miniature import ROWS, image_path
from tests.data.releases.miniature import check_release, write_image, write_text

IDS = "dicom_id,subject_id,study_id,ViewPosition,ViewCodeSequence_CodeMeaning"
PARTS = {"train": ROWS[:3], "development": ROWS[3:5], "test": ROWS[5:]}


def table(rows, findings, path="path", positive=(), negative="0.0"):
    """Return a table in which every image has the positive findings."""
    labels = ["1.0" if finding in positive else negative for finding in findings]
    lines = [",".join([IDS, path, *findings])]
    for row in rows:
        cells = [*row[:4], row[5], image_path(row), *labels]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


@pytest.fixture
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mimic")
    for number, row in enumerate(ROWS):
        write_image(folder / image_path(row), number)
    return folder


@pytest.fixture
def labels_2023(tmp_path):
    for name, rows in PARTS.items():
        text = table(rows, CXRLT2023.findings, positive=("Tortuous Aorta", "No Finding"))
        write_text(tmp_path / f"{name}.csv", text)
    return tmp_path


@pytest.fixture
def labels_2024(tmp_path):
    root = tmp_path / "cxr-lt-2024"
    positive = ("Round(ed) Atelectasis", "Normal", "Hilum")
    text = table(PARTS["train"], CXRLT2024.findings, "fpath", positive)
    write_text(root / "train_labeled.csv", text)
    for task in (1, 2, 3):
        findings = CXRLT2024(str(root), task=task).findings
        for name in ("development", "test"):
            text = table(PARTS[name], findings, "fpath", positive, "0")
            write_text(root / f"{name}_labeled_task{task}.csv", text)
    return tmp_path


def test_the_whole_release_of_2023(labels_2023, images):
    index = check_release(CXRLT2023(str(labels_2023), images=str(images)))
    assert index["split"].tolist() == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert index["origin"].tolist() == [f"mimic:{row[0]}" for row in ROWS]
    assert index["origin_patient"][0] == "mimic:10000032"
    assert index["view_position"].fillna("?").tolist() == [
        "AP",
        "LATERAL",
        "PA",
        "OTHER",
        "PA",
        "?",
    ]
    assert (index["Tortuous Aorta"] == 1).all()
    assert (index["Mass"] == 0).all()


def test_the_whole_release_of_2024(labels_2024, images):
    module = CXRLT2024(str(labels_2024), images=str(images))
    index = check_release(module)
    assert len(module.labels) == 40
    assert (index["Round(ed) Atelectasis"] == 1).all()
    assert index["split"].tolist() == ["train"] * 3 + ["val"] * 2 + ["test"]


def test_tasks_of_2024(labels_2024, images):
    gold = CXRLT2024(str(labels_2024), images=str(images), task=2)
    assert check_release(gold)["Normal"].eq(1).all()
    assert len(gold.labels) == 26
    assert gold.labels[13:16] == ["Mass", "Normal", "Nodule"]
    assert set(gold.labels) < set(CXRLT2024.findings)
    unseen = CXRLT2024(str(labels_2024), images=str(images), task=3)
    index = check_release(unseen)
    assert unseen.labels == ["Bulla", "Cardiomyopathy", "Hilum", "Osteopenia", "Scoliosis"]
    assert index["Hilum"].isna().tolist() == [True] * 3 + [False] * 3
    assert not set(unseen.labels) & set(CXRLT2024.findings)
    with pytest.raises(InputError, match="task must be 1, 2 or 3, got 4"):
        CXRLT2024(str(labels_2024), task=4)


def test_the_vocabularies():
    assert len(CXRLT2023.findings) == 26
    assert list(CXRLT2023.findings) == sorted(CXRLT2023.findings)
    assert list(CXRLT2024.findings) == sorted(CXRLT2024.findings)


def test_partial_releases(labels_2023, images):
    (images / image_path(ROWS[0])).unlink()
    (labels_2023 / "test.csv").unlink()
    unlabelled = table(PARTS["development"], ())
    write_text(labels_2023 / "development.csv", unlabelled)
    module = CXRLT2023(str(labels_2023), images=str(images))
    with pytest.warns(UserWarning, match="1 of 5 images are not there"):
        index = check_release(module)
    assert index["split"].tolist() == ["train"] * 2 + ["val"] * 2
    assert index.loc[index["split"] == "val", "Mass"].isna().all()


def test_a_development_table_without_labels(labels_2024, images):
    root = labels_2024 / "cxr-lt-2024"
    (root / "development_labeled_task1.csv").unlink()
    write_text(root / "development.csv", table(PARTS["development"], (), "fpath"))
    index = check_release(CXRLT2024(str(root), images=str(images)))
    assert index.loc[index["split"] == "val", "Mass"].isna().all()


def test_tables_that_make_no_sense(labels_2023, images):
    file = labels_2023 / "train.csv"
    text = file.read_text()
    file.write_text(text.replace("Tortuous Aorta", "Aorta"))
    with pytest.raises(InputError, match=r"train.csv has no column 'Tortuous Aorta'"):
        CXRLT2023(str(labels_2023), images=str(images)).make_index()
    file.write_text(text.replace("1.0", "0.5"))
    with pytest.raises(InputError, match=r"train.csv: 'No Finding' is '0.5' in row 1"):
        CXRLT2023(str(labels_2023), images=str(images)).make_index()
    file.write_text(text.replace("study_id", "study"))
    with pytest.raises(InputError, match=r"train.csv has no column 'study_id'"):
        CXRLT2023(str(labels_2023), images=str(images)).make_index()


def test_what_is_no_such_release(labels_2023, images):
    with pytest.raises(
        InputError, match=r"it has none of train_labeled.csv, development_labeled_t"
    ):
        CXRLT2024(str(images), images=str(images)).make_index()
    with pytest.raises(InputError, match="give their folder as images"):
        CXRLT2023(str(labels_2023)).make_index()

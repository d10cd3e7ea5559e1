import json

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from cxrssl.callbacks import TaskReport
from cxrssl.callbacks.task_report import write_results
from cxrssl.errors import InputError
from cxrssl.tasks.results import Results
from tests.callbacks.tiny import TinyData, TinyObjective
from tests.objectives.training import quiet_trainer
from tests.tasks.small import (
    FINDINGS,
    HEADS,
    STRUCTURES,
    FewPhantoms,
    phantoms,
    small_classification,
    small_segmentation,
)


def after_test(task, folder, data=None):
    data = phantoms(task, n_images=60) if data is None else data
    trainer = quiet_trainer(callbacks=[TaskReport()], default_root_dir=folder)
    trainer.test(task, datamodule=data, verbose=False)
    return data, {path.name for path in folder.iterdir()}


def has_a_patient(folder, data):
    patients = {patient.encode() for patient in data.index["patient_id"]}
    files = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"]
    return any(patient in file for patient in patients for file in files)


class NamedPatients(FewPhantoms):
    """Patients with names that are found wherever they are written."""

    def make_index(self):
        index = super().make_index()
        return index.assign(patient_id="Smith-" + index["patient_id"].astype(str))


def test_files_of_a_classification(tmp_path, capsys):
    task = small_classification(head=HEADS["glori"])
    data = NamedPatients(60, 48, views=task.views, num_workers=0, split=(0.6, 0.2, 0.2), seed=0)
    _, names = after_test(task, tmp_path, data)
    assert names == {"scores.parquet", "scores.json", "predictions.parquet", "attention.png"}
    predictions = pd.read_parquet(tmp_path / "predictions.parquet")
    rows = data.shown_rows("test")
    assert predictions["path"].tolist() == rows["path"].tolist()
    for place, finding in enumerate(FINDINGS):
        assert predictions[f"label/{finding}"].tolist() == rows[finding].tolist()
        probabilities = task.predictions["probabilities"][:, place]
        assert predictions[f"probability/{finding}"].tolist() == probabilities.tolist()
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert set(scores["finding"]) == {*FINDINGS, "macro"}
    written = pd.DataFrame(json.loads((tmp_path / "scores.json").read_text()))
    np.testing.assert_allclose(written["value"], scores["value"])
    assert not has_a_patient(tmp_path, data)


def test_files_of_a_segmentation(tmp_path):
    task = small_segmentation()
    data = NamedPatients(20, 48, views=task.views, num_workers=0, split=(0.6, 0.2, 0.2), seed=0)
    _, names = after_test(task, tmp_path, data)
    assert names == {"scores.parquet", "scores.json", "dice.parquet", "overlays.png"}
    dice = pd.read_parquet(tmp_path / "dice.parquet")
    assert dice["path"].tolist() == data.shown_rows("test")["path"].tolist()
    columns = dice[[f"dice/{name}" for name in STRUCTURES]].to_numpy()
    np.testing.assert_array_equal(columns, task.predictions["dice"])
    assert not has_a_patient(tmp_path, data)


def test_scores_are_printed(tmp_path, caplog):
    after_test(small_classification(), tmp_path)
    assert "auroc" in caplog.text
    assert str(tmp_path / "scores.json") in caplog.text


def test_nothing_to_score_is_said(tmp_path):
    task = small_classification()
    data = phantoms(task)
    index = data.index
    index.loc[index["split"] == "test", FINDINGS] = 0
    with pytest.raises(InputError, match="no finding has both positive and negative test images"):
        after_test(task, tmp_path, data)


def test_all_processes_ask_for_the_folder_and_the_first_writes(tmp_path, monkeypatch):
    asked = []
    task = small_classification()
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.datamodule = TinyData()
    monkeypatch.setattr(type(trainer), "log_dir", property(lambda self: asked.append(self)))
    monkeypatch.setattr(type(trainer), "is_global_zero", property(lambda self: False))
    TaskReport().on_test_end(trainer, task)
    assert len(asked) == 1  # which waits for all processes
    assert not list(tmp_path.iterdir())


def test_what_is_no_task_or_has_no_index_is_left_alone(tmp_path):
    trainer = quiet_trainer(default_root_dir=tmp_path)
    TaskReport().on_test_end(trainer, small_classification())
    trainer.datamodule = TinyData()
    TaskReport().on_test_end(trainer, TinyObjective())
    assert not list(tmp_path.iterdir())


def test_a_head_in_training_mode_shows_the_attention_of_evaluation(tmp_path, monkeypatch):
    from cxrssl.tasks import classification

    shown = []
    monkeypatch.setattr(
        classification,
        "attention_figure",
        lambda images, maps, *others, **named: shown.append(maps) or Figure(),
    )
    task = small_classification(head=HEADS["glori"])
    data, _ = after_test(task, tmp_path)
    for _ in range(2):
        task.train()
        task.results(data)
        assert task.heads.training
    np.testing.assert_array_equal(shown[1], shown[0])
    np.testing.assert_array_equal(shown[2], shown[0])
    sums = torch.from_numpy(shown[0]).sum((3, 4))
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_written_tables_have_a_plain_index(tmp_path):
    table = pd.DataFrame({"a": [1, 2]}, index=[5, 3])
    paths = write_results(Results({"table": table}, {}, ""), tmp_path / "new")
    assert paths == [tmp_path / "new" / "table.parquet"]
    assert pd.read_parquet(paths[0]).index.tolist() == [0, 1]

import json

import cv2
import pandas as pd
import pytest

from cxrssl.__main__ import main
from cxrssl.data import CXRDataModule
from cxrssl.evaluation.leaks import NOT_STATED, state_level
from tests.data.duplicates.pictures import jpeg, picture
from tests.evaluation.stand_ins import make_index, save_encoder


@pytest.fixture
def siim(tmp_path):
    """Return the data and test rows of an index whose first test image is a copy of NIH's."""
    pictures = {"nih-0": picture(0), "nih-1": picture(1), "siim-0": jpeg(picture(0))}
    pictures["siim-1"] = picture(2)
    for name, grey in pictures.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), grey)
    for dataset, name in (("NIHChestXray14", "nih"), ("SIIMPneumothorax", "siim")):
        paths = [f"{name}-0.png", f"{name}-1.png"]
        pd.DataFrame({"path": paths, "dataset": dataset, "split": "test", "x": [0, 1]}).replace(
            {"split": {"test": "train"} if name == "nih" else {}}
        ).to_csv(tmp_path / f"{name}.csv", index=False)
    data = CXRDataModule(str(tmp_path / "siim.csv"))
    return data, data.rows("test")


def test_nothing_is_said_of_encoders_whose_pretraining_is_not_given(siim):
    assert state_level(*siim, []) == {"level": None, "statement": NOT_STATED}


def test_names_alone_may_not_tell(siim, tmp_path):
    stated = state_level(*siim, [str(tmp_path / "nih.csv")])
    assert stated["level"] == "unknown"
    assert not stated["perceptual_hashes"]


def test_fingerprints_of_both_indices_tell(siim, tmp_path):
    nih, siim_index, out = (str(tmp_path / name) for name in ("nih.csv", "siim.csv", "out"))
    arguments = ["check", nih, "--against", siim_index, f"--out={out}", "--workers=0"]
    assert main(arguments) == 0
    file = f"{out}/fingerprints.parquet"
    stated = state_level(*siim, [nih], file)
    assert stated["level"] == "L0"
    assert stated["exposed"] == 1
    assert "1 of 2 evaluation images are in pretraining; by name and percept" in stated["statement"]
    data, rows = siim
    assert state_level(data, rows.iloc[1:], [nih], file)["level"] == "L1"
    (tmp_path / "nih-1.png").write_bytes(b"another file")
    stated = state_level(*siim, [nih], file)
    assert stated["level"] == "unknown"
    assert "lacks 1 images: run cxrssl check" in stated["statement"]


def test_the_command_states_the_level_on_screen_and_in_its_file(tmp_path, capsys):
    encoder = save_encoder(tmp_path / "encoder.safetensors")
    index = str(tmp_path / "index.csv")
    make_index(tmp_path).assign(dataset="Ours").to_csv(index, index=False)
    quick = ["--replicates=20", "--shares=[]", "--shots=[]", "--groups=[]", "--metadata=false"]
    arguments = ["evaluate", index, f"--encoder={encoder}", f"--out={tmp_path / 'out'}", *quick]
    arguments += ["--methods=[linear]", "--data.num_workers=0"]
    assert main([*arguments, "--pretrained_on", index]) == 0
    assert "Leak level: L2 (no evaluation patient in pretraining; by" in capsys.readouterr().out
    description = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert description["leaks"]["level"] == "L2"
    assert description["leaks"]["images"] == 36
    assert main(arguments) == 0
    assert f"Leak level: {NOT_STATED}" in capsys.readouterr().out

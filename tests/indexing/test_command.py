import pandas as pd
import pytest

from cxrssl.__main__ import main
from cxrssl.data import CXRDataModule, NIHChestXray14
from tests.data.releases import test_nih

root = test_nih.root


def test_an_index_trains_where_its_release_does(root, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "nih.parquet"
    assert main(["index", "NIHChestXray14", str(root), str(out)]) == 0
    printed = capsys.readouterr().out
    assert "6 images of 4 patients" in printed
    assert f"--data.index {out} --data.root {root}" in printed
    again = CXRDataModule(str(out), str(root))
    pd.testing.assert_frame_equal(again.index, NIHChestXray14(str(root)).index)


def test_options_of_the_class_are_flags(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "nih.csv"
    flags = ["--data.view_positions", "[AP]", "--data.vocabulary", "common"]
    assert main(["index", "NIHChestXray14", str(root), str(out), *flags]) == 0
    table = pd.read_csv(out)
    assert table["view_position"].tolist() == ["AP"]
    assert "Nodule or Mass" in table


def test_verification_compares_with_the_published_counts(
    root, tmp_path_factory, capsys, monkeypatch
):
    command = ["index", "NIHChestXray14", str(root), str(tmp_path_factory.mktemp("o") / "i.csv")]
    assert main([*command, "--verify"]) == 1
    assert "images: 112,120, 6" in capsys.readouterr().out
    monkeypatch.setattr(NIHChestXray14, "counts", {"images": 6, "boxes": 2, "Hernia": 1})
    assert main([*command, "--verify"]) == 0
    assert "all 3 published counts agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["NIHChestXray15", "ROOT", "i.csv"], "did you mean NIHChestXray14"),
        (["NIHChestXray14", "nowhere", "i.csv"], "nowhere is no folder"),
        (["NIHChestXray14", "ROOT", "index.txt"], "must end in .parquet or .csv"),
        (["NIHChestXray14", "ROOT", "nowhere/i.csv"], "create it first"),
        (["CXRDataModule", "ROOT", "i.csv", "--verify"], "no published counts"),
    ],
)
def test_bad_input_is_one_sentence(root, capsys, words, reason, monkeypatch):
    monkeypatch.chdir(root)
    words = [str(root) if word == "ROOT" else word for word in words]
    assert main(["index", *words]) == 2
    assert reason in capsys.readouterr().err

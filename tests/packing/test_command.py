import numpy as np
import pandas as pd
import pytest
import yaml

from cxrssl.__main__ import main
from cxrssl.data import CXRDataModule
from tests.data.releases import test_nih
from tests.data.stand_ins import write_index

root = test_nih.root


def test_an_index_is_packed_verified_and_trained_on(tmp_path, capsys):
    index, out = write_index(tmp_path, corrupt=(5,)), str(tmp_path / "store")
    assert main(["pack", index, out, "--size", "4", "--verify", "--workers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "47 images" in printed
    assert "1 could not be read: " in printed
    assert f"--data.index {out}" in printed
    assert "Verified: all 48 images" in printed
    data = CXRDataModule(out)
    assert data.make_source(data.index)[0].shape == (4, 4)
    assert main(["pack", index, out, "--size=4"]) == 0
    assert "packed before" in capsys.readouterr().out


def test_a_store_alone_is_verified(tmp_path, capsys):
    index, out = write_index(tmp_path), tmp_path / "store"
    assert main(["pack", index, str(out), "--workers=1"]) == 0
    assert main(["pack", str(out), "--verify"]) == 0
    data = bytearray((out / "images-00000.arrow").read_bytes())
    data[1000] ^= 4
    (out / "images-00000.arrow").write_bytes(data)
    assert main(["pack", str(out), "--verify"]) == 2
    assert "1 of 48 images are damaged" in capsys.readouterr().err


def test_a_release_and_a_config(root, tmp_path_factory, capsys):
    folder = tmp_path_factory.mktemp("out")
    flags = ["--data", "NIHChestXray14", "--data.root", str(root), "--workers=1"]
    assert main(["pack", *flags, str(folder / "a")]) == 0
    init = {"root": str(root)}
    config = {"data": {"class_path": "NIHChestXray14", "init_args": init}, "workers": 1, "bits": 16}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["pack", "--config", str(folder / "config.yaml"), str(folder / "b")]) == 0
    deep, flat = (CXRDataModule(str(folder / name)) for name in "ba")
    assert flat.index["dataset"].unique().tolist() == ["NIHChestXray14"]
    frames = [data.index.drop(columns="path") for data in (deep, flat)]
    pd.testing.assert_frame_equal(*frames)
    for ours, theirs in zip(*(data.make_source(data.index) for data in (deep, flat)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["INDEX", "OUT", "--size=0"], "size must be at least 1, got 0"),
        (["INDEX", "OUT", "--workers=0"], "workers must be at least 1"),
        (["INDEX", "OUT", "--max_corrupt=2"], "max_corrupt must be in [0, 1]"),
        (["INDEX", "OUT", "--bits=12"], "12"),
        (["INDEX", "OUT", "--compression=gzip"], "gzip"),
        (["INDEX", "OUT", "--data=PhantomDataModule"], "PhantomDataModule takes no index"),
        (["INDEX", "OUT", "--data.index=INDEX"], "two indexes"),
        (["INDEX", "OUT", "--data.polarity=check"], "leave polarity out here"),
        (["OUT"], "has no images: give index"),
        (["OUT", "--verify"], "is no packed store"),
        (["nowhere.csv", "OUT"], "nowhere.csv: no such file"),
        ([], "out"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, words, reason):
    index = write_index(tmp_path, n=4, splits=(2, 1))
    words = [w.replace("INDEX", index).replace("OUT", str(tmp_path / "out")) for w in words]
    assert main(["pack", *words]) == 2
    text = capsys.readouterr().err
    assert text.startswith("cxrssl: error: ")
    assert reason in text
    assert "Traceback" not in text


def test_help_names_the_command_and_its_keys(capsys):
    main(["--help"])
    assert "pack       decode images once" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["pack", "--help"])
    text = capsys.readouterr().out
    for flag in ("INDEX", "OUT", "--size", "--bits", "--compression", "--verify", "--retry"):
        assert flag in text

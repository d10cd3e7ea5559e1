import sys

import pytest

from cxrssl.__main__ import main
from tests.reporting.cards import labelled_images, save_encoder

QUICK = [
    *("--replicates=20", "--shares=[]", "--shots=[]", "--methods=[linear]", "--metadata=false"),
    *("--data.num_workers=0", "--images=2", "--neighbours=2"),
]


@pytest.fixture
def given(tmp_path):
    index = tmp_path / "index.csv"
    labelled_images(tmp_path).to_csv(index, index=False)
    return {"INDEX": str(index), "FILE": save_encoder(tmp_path / "encoder.safetensors"),
            "OUT": str(tmp_path / "out.html")}  # fmt: skip


def reported(given, *flags):
    for name, value in given.items():
        flags = [flag.replace(name, value) for flag in flags]
    return main(["report", *flags, *QUICK])


def test_a_page_is_written_whole(given, tmp_path, capsys):
    assert reported(given, "--encoder", "FILE", "INDEX", "OUT", "--title=My card") == 0
    page = (tmp_path / "out.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<h1>My card</h1>" in page
    assert page.rstrip().endswith("</html>")
    assert f"{given['OUT']}: 0." in capsys.readouterr().out
    assert not list(tmp_path.glob(".*.part"))


def test_data_without_an_index_and_no_images(given, tmp_path):
    phantom = ["--data=PhantomDataModule", "--data.n_images=120", "--data.size=32"]
    assert reported(given, "--encoder=a=FILE", "OUT", *phantom, "--no_images") == 0
    page = (tmp_path / "out.html").read_text()
    assert "Report card of a" in page
    assert "image/jpeg" not in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["INDEX", "OUT"], "no encoder to report on"),
        (["--encoder=FILE", "INDEX"], "is an HTML file, but"),
        (["--encoder=FILE"], "no file to write"),
        (["--encoder=FILE", "INDEX", "/nowhere/out.html"], "no folder /nowhere"),
        (["--encoder=FILE", "--encoder=FILE", "INDEX", "OUT"], "names of their own"),
        (["--encoder=FILE", "--head=b=FILE", "INDEX", "OUT"], "belongs to no encoder"),
        (["--encoder=FILE", "--head=/nowhere.ckpt", "INDEX", "OUT"], "no checkpoint /nowhere.ckpt"),
        (["--encoder=FILE", "--decoder=FILE", "INDEX", "OUT"], "lie in the folder of its run"),
        (["--encoder=FILE", "INDEX", "OUT", "--world_images=1"], "world_images must be at least 2"),
        (["--encoder=FILE", "INDEX", "OUT", "--landmarks=/no.csv"], "no CSV file of landmarks"),
    ],
)
def test_bad_input_gets_a_sentence(given, capsys, flags, message):
    assert reported(given, *flags) == 2
    text = capsys.readouterr().err
    assert text.startswith("cxrssl: error: ")
    assert message in text


def test_a_missing_package_gets_a_sentence(given, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert reported(given, "--encoder=FILE", "INDEX", "OUT") == 2
    assert 'pip install "cxrssl[report]"' in capsys.readouterr().err


def test_help_names_the_command_and_its_keys(capsys):
    main(["--help"])
    assert "report     the report card" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["report", "--help"])
    text = capsys.readouterr().out
    for flag in ("--encoder", "--head", "--decoder", "--landmarks", "--no_images", "--pretrained"):
        assert flag in text

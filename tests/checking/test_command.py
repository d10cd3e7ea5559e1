import cv2
import pandas as pd
import pytest

from cxrssl.__main__ import main
from cxrssl.data import validate_index
from cxrssl.errors import InputError
from tests.data.duplicates.pictures import jpeg, picture

FILES = ["corrupt.csv", "duplicates.csv", "leaks.csv", "patients.csv"]


def write_index(folder, name, pictures, **columns):
    """Write pictures, None for a file that is not there, and an index of them."""
    paths = [f"{name}-{number}.png" for number in range(len(pictures))]
    for path, grey in zip(paths, pictures, strict=True):
        if isinstance(grey, bytes):
            (folder / path).write_bytes(grey)
        elif grey is not None:
            cv2.imwrite(str(folder / path), grey)
    frame = pd.DataFrame({"path": paths, **columns})
    frame.to_csv(folder / f"{name}.csv", index=False)
    return str(folder / f"{name}.csv")


@pytest.fixture
def indices(tmp_path):
    """Return an index in which all goes wrong, and one of which it has an image."""
    own = write_index(
        tmp_path,
        "own",
        [
            picture(0),
            picture(1),
            jpeg(picture(1)),
            picture(0) * 0,
            None,
            b"\xff\xd8\xff",
            picture(2),
        ],
        patient_id=["p1", "p2", "p3", "p4", "p5", "p6", "p1"],
        split=["train", "train", "test", "train", "train", "train", "val"],
        dataset="NIHChestXray14",
    )
    other = write_index(
        tmp_path,
        "other",
        [255 - picture(0), picture(5)],
        split=["test"] * 2,
        dataset="SIIMPneumothorax",
    )
    return own, other


def checked(tmp_path, *arguments, code=0):
    folder = tmp_path / "out"
    assert main(["check", *arguments, f"--out={folder}", "--workers=0"]) == code
    return {name: pd.read_csv(folder / name) for name in FILES}


def test_all_that_is_wrong_is_found_and_told(tmp_path, indices, capsys):
    own, other = indices
    tables = checked(tmp_path, own, "--against", other)
    screen = capsys.readouterr().out
    corrupt = tables["corrupt.csv"]
    assert corrupt["state"].tolist() == ["blank", "missing", "unreadable"]
    assert corrupt["path"].str[-9:].tolist() == ["own-3.png", "own-4.png", "own-5.png"]
    patients = tables["patients.csv"]
    assert patients[["patient_id", "split"]].to_numpy().tolist() == [["p1", "train"], ["p1", "val"]]
    duplicates = tables["duplicates.csv"]
    assert duplicates["cluster"].tolist() == [0, 0, 1, 1]
    assert duplicates["index"].tolist() == [own, other, own, own]
    assert duplicates["reason"].isna().tolist() == [True, False, True, False]
    leaks = tables["leaks.csv"]
    assert leaks["split"].tolist() == ["test", "val", "test"]
    assert leaks["reason"].tolist() == ["near duplicate", "same patient", "near duplicate"]
    for part in (
        f"{own}: 7 images (train 5, test 1, val 1)",
        "1 blank, 1 missing, 1 unreadable:",
        "2 copies in 2 clusters, 1 of them across indices (2 near duplicate)",
        "1 patients stand in more than one split, see patients.csv",
        f"{own}, test: L0 (1 of 1 evaluation images are in pretraining; by name and perceptual",
        f"{other}, test: L0 (1 of 2 evaluation images are in pretraining",
    ):
        assert part in screen
    assert "p1" not in screen


def test_names_alone_open_no_image_and_say_what_they_cannot_tell(tmp_path, indices, capsys):
    own, other = indices
    tables = checked(tmp_path, own, "--against", other, "--hashes=false")
    screen = capsys.readouterr().out
    assert tables["corrupt.csv"].empty
    assert tables["leaks.csv"]["reason"].tolist() == ["same patient"]
    assert "images were not opened" in screen
    assert f"{own}, val: L1 (no evaluation image in pretraining; 1 of 1 images are of" in screen
    assert f"{other}, test: unknown (NIHChestXray14 and SIIMPneumothorax may share" in screen
    assert not (tmp_path / "out" / "fingerprints.parquet").exists()


def test_a_clean_index_passes_strictly_and_others_do_not(tmp_path, indices, capsys):
    clean = write_index(tmp_path, "clean", [picture(7), picture(8)], split=["train", "test"])
    tables = checked(tmp_path, clean, "--strict")
    assert all(table.empty for table in tables.values())
    screen = capsys.readouterr().out
    assert "every image can be read\nno image has a copy\nno patient stands in more" in screen
    checked(tmp_path, indices[0], "--strict", code=1)


def test_folders_releases_and_roots_of_other_indices(tmp_path, indices, capsys):
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "other.csv"
    moved.write_text((tmp_path / "other.csv").read_text())
    tables = checked(
        tmp_path,
        "--data=PhantomDataModule",
        "--data.n_images=6",
        "--data.size=32",
        "--against",
        f"{moved}={tmp_path}",
    )
    assert tables["corrupt.csv"].empty
    assert f"{moved}: 2 images" in capsys.readouterr().out
    checked(tmp_path, str(tmp_path))
    assert f"{tmp_path}: 8 images, no splits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/nowhere.csv"], "/nowhere.csv: no such file"),
        ([], "has no images: give index"),
        (["OWN", "--against", "/nowhere.csv"], "/nowhere.csv: no such file"),
        (["OWN", "--against", "OWN"], "is given twice"),
        (["OWN", "--workers=-1"], "workers must be at least 0, got -1"),
        (["OWN", "--hash=false"], "hash"),
        (["OWN", "--data.index=OTHER"], "there are two indexes"),
        (["OWN", "--data=PhantomDataModule"], "index"),
    ],
)
def test_bad_input_gets_a_sentence(tmp_path, indices, capsys, arguments, message):
    names = dict(zip(("OWN", "OTHER"), indices, strict=True))
    out = [f"--out={tmp_path / 'out'}"]
    given = [names.get(word, word) for word in arguments]
    assert main(["check", *given, *out]) == 2
    text = capsys.readouterr().err
    assert text.startswith("cxrssl: error: ")
    assert message in text
    assert "Traceback" not in text


def test_help_names_the_command_and_its_keys(capsys):
    main(["--help"])
    assert "check      open every image" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["check", "--help"])
    text = capsys.readouterr().out
    for flag in ("--against", "--out", "--workers", "--hashes", "--strict", "--data"):
        assert flag in text


def test_an_index_is_still_refused_everywhere_else(indices):
    with pytest.raises(InputError, match="1 patients stand in more than one split"):
        validate_index(pd.read_csv(indices[0]))

"""Tables of embeddings: what is in them, however they were made."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from cxrssl.__main__ import main
from cxrssl.data import CXRDataModule
from cxrssl.embedding import EmbedOptions, embed
from cxrssl.embedding.parts import PartFolder
from cxrssl.embedding.shares import Share, this_share
from cxrssl.errors import InputError
from cxrssl.tasks.encoder import view_options
from cxrssl.views import EvalView
from tests.evaluation.stand_ins import make_index, save_encoder, small_vit

MODULE = "cxrssl.embedding.run"


@pytest.fixture
def frame(tmp_path):
    frame = make_index(tmp_path).iloc[:50].assign(note=[f"é{number}" for number in range(50)])
    (tmp_path / "007.png").write_bytes(b"broken")
    return frame


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(f"{MODULE}._MOST", 16)


def data(frame, tmp_path, **arguments):
    path = tmp_path / "index.csv"
    frame.to_csv(path, index=False)
    options = {"num_workers": 0, "batch_size": 7, "max_corrupt": 0.1}
    return CXRDataModule(str(path), **(options | arguments))


def read(path):
    table = pd.read_parquet(path)
    return table, np.stack(table["embedding"].to_list())


def expected(vit, frame, data):
    """Return both tokens of every image, one after the other."""
    view = EvalView(**view_options(vit))
    source = data.make_source(frame)
    rows = []
    for number in range(len(frame)):
        if number == 7:
            rows.append(np.full(32, np.nan))
            continue
        with torch.no_grad():
            rows.append(vit(view(source[number])["image"][None]).pool("both")[0].numpy())
    return np.stack(rows)


def test_every_image_and_every_column(tmp_path, frame):
    vit, module = small_vit(), data(frame, tmp_path)
    out = tmp_path / "table.parquet"
    done = embed(vit, module, out, EmbedOptions(tokens="both"))
    table, vectors = read(out)
    np.testing.assert_allclose(vectors, expected(vit, frame, module), atol=1e-6)
    pd.testing.assert_frame_equal(
        table.drop(columns=["embedding", "note"]), module.index.reset_index(drop=True)
    )
    assert table["note"].tolist() == frame["note"].tolist()
    assert {"note", "age", "left"} <= set(table)
    assert (done.images, done.encoded, done.failed, done.shape) == (50, 50, 1, (32,))
    failures = pd.read_csv(tmp_path / "table.parquet.failures.csv")
    assert failures["path"].tolist() == [frame["path"].iloc[7]]
    about = json.loads(pq.read_schema(out).metadata[b"cxrssl"])
    assert about["tokens"] == "both"
    assert str(tmp_path) not in json.dumps(about)
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("processes", [2, 3])
def test_the_same_numbers_from_any_number_of_processes(tmp_path, frame, processes):
    vit, module = small_vit(), data(frame, tmp_path)
    embed(vit, module, tmp_path / "one.parquet")
    for rank in range(processes):
        last = embed(vit, module, tmp_path / "many.parquet", share=Share(rank, processes))
        assert (last.left == 0) == (rank == processes - 1)
    one, many = ((tmp_path / f"{name}.parquet").read_bytes() for name in ("one", "many"))
    assert one == many


def test_workers_and_batches(tmp_path, frame):
    vit = small_vit()
    tables = []
    for name, arguments in {"a": {}, "b": {"batch_size": 20}}.items():
        out = tmp_path / f"{name}.parquet"
        embed(vit, data(frame, tmp_path, **arguments), out)
        tables.append(read(out)[1])
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-5)


def test_an_interrupted_run_goes_on(tmp_path, frame, monkeypatch):
    vit, module = small_vit(), data(frame, tmp_path)
    embed(vit, module, tmp_path / "whole.parquet")
    out = tmp_path / "table.parquet"
    write = PartFolder.write

    def stopped(folder, number, part):
        if number == 2:
            raise KeyboardInterrupt
        write(folder, number, part)

    with monkeypatch.context() as patch:
        patch.setattr("cxrssl.embedding.parts.PartFolder.write", stopped)
        with pytest.raises(KeyboardInterrupt):
            embed(vit, module, out)
    parts = tmp_path / "table.parquet.parts"
    assert len(list(parts.glob("part-*.npz"))) == 2
    (parts / "part-000001.npz").write_bytes(b"cut off")
    with pytest.raises(InputError, match=r"other settings \(tokens was class and is mean\)"):
        embed(vit, module, out, EmbedOptions(tokens="mean"))
    with pytest.raises(InputError, match=r"other settings \(encoder was"):
        embed(small_vit(1), module, out)
    done = embed(vit, module, out)
    assert done.encoded == 50 - 16
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    again = embed(vit, module, out)
    assert (again.encoded, again.failed, again.left) == (0, 1, 0)


@pytest.mark.parametrize("tokens", ["class", "mean", "patches"])
def test_npz_of_tokens_of_an_earlier_level(tmp_path, frame, tokens):
    vit, module = small_vit(), data(frame, tmp_path)
    out = tmp_path / "table.npz"
    options = EmbedOptions(tokens=tokens, layer=0, image_size=48, split="train", dtype="float16")
    done = embed(vit, module, out, options)
    with np.load(out, allow_pickle=False) as arrays:
        vectors = arrays["embedding"]
        assert arrays["path"].tolist() == module.rows("train")["path"].tolist()
        assert arrays["age"].dtype.kind in "if"
    assert vectors.shape == (50, *done.shape)
    assert vectors.dtype == np.float16
    assert done.shape == ((9, 16) if tokens == "patches" else (16,))
    view = EvalView(**view_options(vit, 48))
    with torch.no_grad():
        image = view(module.make_source(frame)[3])["image"][None]
        [level] = vit.levels(image, [0])
    wanted = level.patches[0] if tokens == "patches" else level.pool(tokens)[0]
    np.testing.assert_allclose(vectors[3], wanted.numpy(), atol=4e-3)
    assert np.isnan(vectors[7]).all()
    assert embed(vit, module, out, options).encoded == 0


def test_what_the_encoder_was_trained_for_is_the_default(tmp_path, frame):
    vit, module = small_vit(), data(frame, tmp_path)
    vit.trained_pooling = "mean"
    embed(vit, module, tmp_path / "own.parquet")
    embed(vit, module, tmp_path / "mean.parquet", EmbedOptions(tokens="mean"))
    own, mean = (read(tmp_path / f"{name}.parquet")[1] for name in ("own", "mean"))
    np.testing.assert_array_equal(own, mean)


def test_bfloat16_is_near(tmp_path, frame):
    vit, module = small_vit(), data(frame, tmp_path)
    for name in ("32-true", "bf16-mixed"):
        embed(vit, module, tmp_path / f"{name}.parquet", EmbedOptions(precision=name))
    exact, near = (read(tmp_path / f"{name}.parquet")[1] for name in ("32-true", "bf16-mixed"))
    assert 0 < np.nanmax(np.abs(exact - near)) < 0.1


def test_refused(tmp_path, frame):
    vit, module = small_vit(), data(frame, tmp_path)
    with pytest.raises(InputError, match=r"must end in \.parquet or \.npz"):
        embed(vit, module, tmp_path / "table.csv")
    with pytest.raises(InputError, match="is no folder: create it first"):
        embed(vit, module, tmp_path / "nowhere" / "table.npz")
    with pytest.raises(InputError, match="has levels -1 to 0"):
        embed(vit, module, tmp_path / "table.npz", EmbedOptions(layer=1))
    with pytest.raises(InputError, match="no images of the split 'test'"):
        embed(vit, module, tmp_path / "table.npz", EmbedOptions(split="test"))
    with pytest.raises(InputError, match="not tiled by the encoder's patches"):
        embed(vit, module, tmp_path / "table.npz", EmbedOptions(image_size=40))
    with pytest.raises(InputError, match="tokens must be class, mean, both, patches"):
        EmbedOptions(tokens="cls")
    vit.vit.norm.weight.data[0] = torch.nan
    with pytest.raises(InputError, match="makes NaN"):
        embed(vit, module, tmp_path / "other.npz")
    with pytest.raises(InputError, match="column 'embedding' of its own"):
        embed(vit, data(frame.assign(embedding=1), tmp_path), tmp_path / "table.npz")


def test_shares_of_launchers():
    assert this_share({}) == Share(0, 1, 0)
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "SLURM_PROCID": "0"}
    assert this_share(torchrun) == Share(5, 8, 1)
    slurm = {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert this_share(slurm) == Share(2, 4, 0)
    with pytest.raises(InputError, match="RANK is 8 and WORLD_SIZE is 8"):
        this_share({"RANK": "8", "WORLD_SIZE": "8"})
    with pytest.raises(InputError, match="whole numbers"):
        this_share({"RANK": "one", "WORLD_SIZE": "8"})


def test_the_command(tmp_path, frame, capsys, monkeypatch):
    path = tmp_path / "index.csv"
    frame.to_csv(path, index=False)
    encoder = save_encoder(tmp_path / "encoder.safetensors")
    out = tmp_path / "table.parquet"
    flags = ["--encoder", encoder, str(path), str(out), "--data.num_workers=0"]
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main(["embed", *flags, "--data.max_corrupt=0.1"]) == 0
        printed = capsys.readouterr().out
        assert ("parts are left" in printed) == (rank == "0")
    assert "50 images, 16 numbers each" in printed
    assert "1 could not be read" in printed
    assert len(pd.read_parquet(out)) == 50
    assert main(["embed", *flags, "--tokens=cls"]) == 2
    assert main(["embed", str(path), str(out)]) == 2
    with pytest.raises(SystemExit):
        main(["embed", "--help"])
    assert "--tokens" in capsys.readouterr().out

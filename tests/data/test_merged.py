import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cxrssl.__main__ import main
from cxrssl.data import CXRDataModule, Merged, PhantomDataModule
from cxrssl.data.merging import weigh
from cxrssl.data.phantom import Phantom
from cxrssl.errors import InputError
from cxrssl.views import PairViews, SupervisedView
from cxrssl.views.targets import Targets
from tests.data.releases.miniature import grey, write_image


def dataset(folder, name, rows, **columns):
    """Write images and a CSV that describes them; rows are (file, patient, split)."""
    table = pd.DataFrame(rows, columns=["path", "patient_id", "split"]).assign(dataset=name)
    for column, values in columns.items():
        table[column] = values
    for number, file in enumerate(table["path"]):
        write_image(folder / name / file, 100 * len(name) + number)
    table.to_csv(folder / name / "index.csv", index=False)
    return CXRDataModule(str(folder / name / "index.csv"))


@pytest.fixture
def a(tmp_path):
    rows = [(f"{n}.png", f"p{n // 2}", "train") for n in range(8)] + [("8.png", "p9", "test")]
    origins = [f"nih:{n}.png" for n in range(9)]
    owners = [f"nih:{n // 2}" for n in range(9)]
    labels = [1, 0, -1, "", 0, 0, 0, 0, 1]
    return dataset(
        tmp_path, "a", rows, origin=origins, origin_patient=owners, Nodule=labels, Mass=0
    )


@pytest.fixture
def bb(tmp_path):
    rows = [("x.png", "q0", "train"), ("y.png", "q1", "val"), ("z.png", "q2", "train")]
    origins = ["nih:0.png", "", "bb:z"]
    owners = ["nih:0", "nih:1", "bb:2"]
    return dataset(
        tmp_path, "bb", rows, origin=origins, origin_patient=owners, **{"Lung Lesion": 1}
    )


def names(index, split):
    return sorted(path.split("/")[-1] for path in index.loc[index["split"] == split, "path"])


def test_copies_are_kept_once_and_patients_stay_in_one_split(a, bb):
    merged = Merged({"a": a, "bb": bb})
    index = merged.index
    # x is 0.png of the other; 2.png and 3.png are of a patient whose image y validates.
    assert names(index, "train") == ["0.png", "1.png", "4.png", "5.png", "6.png", "7.png", "z.png"]
    assert names(index, "val") == ["y.png"]
    assert names(index, "test") == ["8.png"]
    reasons = dict(zip(merged.dropped["dropped"].str[-5:], merged.dropped["reason"], strict=True))
    assert reasons == {
        "x.png": "same origin",
        "2.png": "patient of a later split",
        "3.png": "patient of a later split",
    }
    assert merged.dropped["kept"].dropna().tolist() == [index["path"][0]]
    assert set(index["dataset"]) == {"a", "bb"}


def test_labels_of_the_common_vocabulary(a, bb):
    index = Merged({"a": a, "bb": bb}, deduplicate="off").index
    lesions = index.set_index("path")["Nodule or Mass"]
    values = {path.split("/")[-1]: value for path, value in lesions.items()}
    assert [values[name] for name in ("0.png", "1.png", "x.png")] == [1, 0, 1]
    own = Merged({"a": a, "bb": bb}, vocabulary="release").index
    assert own.loc[own["dataset"] == "bb", "Nodule"].isna().all()


def test_every_image_is_read_by_its_own_dataset(a, bb):
    phantom = PhantomDataModule(n_images=6, size=32)
    merged = Merged(
        {"a": a, "phantom": phantom, "bb": bb}, views=PairViews(image_size=16), num_workers=0
    )
    rows = merged.rows("train")
    source = merged.make_source(rows)
    for number, path in enumerate(rows["path"]):
        if path.startswith("phantom/"):
            drawn = int(path.removeprefix("phantom/"))
            expected = phantom.phantom.pixels(drawn)
        elif "/a/" in path:
            expected = grey(100 + int(path[-5]))
        else:
            expected = grey(200 + "xyz".index(path[-5]))
        np.testing.assert_array_equal(source[number], expected)
        assert source.name(number) == path


def test_a_batch_of_one_dataset_is_what_the_dataset_gives(a):
    alone = CXRDataModule(
        a._source, views=PairViews(image_size=16), batch_size=4, num_workers=0, seed=1
    )
    merged = Merged({"a": a}, views=PairViews(image_size=16), batch_size=4, num_workers=0, seed=1)
    for module in (alone, merged):
        module.setup("fit")
    for one, other in zip(alone.train_dataloader(), merged.train_dataloader(), strict=True):
        assert torch.equal(one["views"], other["views"])


def test_inverted_images_of_any_dataset_are_turned(tmp_path):
    phantom = PhantomDataModule(n_images=4, size=64)
    images = [phantom.phantom.pixels(number) for number in range(4)]
    one = dataset(tmp_path, "one", [(f"{n}.png", f"p{n}", "train") for n in range(4)])
    for number, image in enumerate(images):
        write_image(tmp_path / "one" / f"{number}.png", 255 - image if number % 2 else image)
    merged = Merged({"phantom": phantom, "one": one}, polarity="check")
    rows = merged.index
    source = merged.shown_source(rows)
    upright = 0
    for number, path in enumerate(rows["path"]):
        place = int(path[-5]) if path.endswith(".png") else int(path.removeprefix("phantom/"))
        upright += np.array_equal(source[number], images[place])
    assert upright == len(rows) == 8


def test_masks_of_datasets_that_write_them_in_different_ways(tmp_path):
    size = 24
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[:, : size // 2] = 255
    write_image(tmp_path / "one" / "mask.png", mask)
    one = dataset(tmp_path, "one", [("i.png", "p", "train")], **{"mask/lungs": "mask.png"})
    runs = f"1 {size * size // 2}"
    two = dataset(tmp_path, "two", [("i.png", "p", "train")], **{"mask/heart": runs})
    two.mask_rules = type(two.mask_rules)(format="kaggle")
    views = SupervisedView(image_size=size)
    views.targets = Targets(structures=("lungs", "heart"))
    merged = Merged({"one": one, "two": two}, views=views, batch_size=1, num_workers=0)
    assert merged.structures == ["lungs", "heart"]
    rows = merged.rows("train")
    assert merged.has_mask(rows, "heart").tolist() == [False, True]
    reader = merged.make_masks(rows, ["lungs", "heart"])
    first, second = (reader.read(number, (size, size)) for number in (0, 1))
    np.testing.assert_array_equal(first[0], mask // 255)
    np.testing.assert_array_equal(second[1], mask // 255)
    assert (first[1] == 255).all()
    assert (second[0] == 255).all()


def test_held_out_images_and_their_patients(a, bb, tmp_path):
    table = pd.DataFrame({"path": ["elsewhere.png"], "origin": ["nih:4.png"]})
    table["origin_patient"] = "nih:2"
    table.to_csv(tmp_path / "evaluation.csv", index=False)
    held_out = [str(tmp_path / "evaluation.csv")]
    images = Merged({"a": a}, held_out=held_out, level="L1").index
    assert names(images, "train") == [f"{n}.png" for n in (0, 1, 2, 3, 5, 6, 7)]
    patients = Merged({"a": a, "bb": bb}, held_out=held_out).index
    assert "5.png" not in names(patients, "train")


def test_copies_that_look_the_same_are_found_by_fingerprints(tmp_path):
    phantom = Phantom(96)
    images = [phantom.pixels(number) for number in range(8)]
    rows = [(f"{n}.png", f"p{n}", "train") for n in range(4)]
    one = dataset(tmp_path, "one", rows)
    other = dataset(tmp_path, "other", [("0.jpg", "q0", "test"), ("4.jpg", "q4", "train")])
    for number in range(4):
        write_image(tmp_path / "one" / f"{number}.png", images[number])
    for number in (0, 4):
        write_image(tmp_path / "other" / f"{number}.jpg", images[number])
    evaluation = dataset(tmp_path, "evaluation", [("1.jpg", "r", "test")])
    write_image(tmp_path / "evaluation" / "1.jpg", 255 - images[1][:, ::-1])
    check = ["check", one._source, "--against", other._source, "--against", evaluation._source]
    assert main([*check, "--out", str(tmp_path / "check"), "--workers", "0"]) == 0
    prints = str(tmp_path / "check" / "fingerprints.parquet")
    merged = Merged(
        {"one": one, "other": other}, fingerprints=prints, held_out=[evaluation._source]
    )
    index = merged.index
    assert names(index, "train") == ["2.png", "3.png", "4.jpg"]
    assert names(index, "test") == ["0.jpg"]
    reasons = {path[-5:]: why for path, why in merged.dropped[["dropped", "reason"]].to_numpy()}
    assert reasons == {"0.png": "near duplicate", "1.png": "image held out"}
    part = tmp_path / "part"
    assert main(["check", other._source, "--out", str(part), "--workers", "0"]) == 0
    some = Merged({"one": one, "other": other}, fingerprints=str(part / "fingerprints.parquet"))
    with pytest.warns(UserWarning, match="4 of 6 images have no fingerprint"):
        some.make_index()


def test_caps_take_patients_whole_and_nest(a):
    small, large = (Merged({"a": a}, caps={"a": most}).index for most in (2, 4))
    assert len(names(small, "train")) == 2
    assert set(names(small, "train")) < set(names(large, "train"))
    assert names(small, "test") == ["8.png"]


def test_sampling_weights_balance_sources():
    sources = pd.Series(["a"] * 90 + ["b"] * 10)
    assert weigh(sources, {}, 1.0) is None
    for balance, weights, share in [(0.0, {}, 0.5), (0.5, {}, 0.25), (0.0, {"b": 3.0}, 0.75)]:
        weight = weigh(sources, weights, balance)
        assert weight[90:].sum() / weight.sum() == pytest.approx(share)


def test_what_is_wrong_is_said(a, tmp_path):
    with pytest.raises(InputError, match="at least one"):
        Merged({})
    with pytest.raises(InputError, match="weights names 'b', which is none of a"):
        Merged({"a": a}, weights={"b": 1.0})
    with pytest.raises(InputError, match="caps of 'a' must be above 0, got 0"):
        Merged({"a": a}, caps={"a": 0})
    for option in ({"subset": 0.5}, {"polarity": "check"}):
        with pytest.raises(InputError, match="of the dataset 'a' would have no effect"):
            Merged({"a": CXRDataModule(a._source, **option)})
    held_out = tmp_path / "all.csv"
    a.index[["path"]].to_csv(held_out, index=False)
    with pytest.raises(InputError, match="no training image is left of a"):
        _ = Merged({"a": a}, held_out=[str(held_out)]).index


def test_a_config_file_merges_and_trains(a, tmp_path):
    config = {
        "model": {
            "class_path": "VICReg",
            "init_args": {
                "backbone": {
                    "class_path": "ViT",
                    "init_args": {"name": "vit_tiny", "img_size": 16, "width": 24, "depth": 1,
                                  "heads": 2, "patch_size": 8},
                },
                "views": {"class_path": "PairViews", "init_args": {"image_size": 16}},
                "expander": {"class_path": "Projector", "init_args": {"widths": [8, 8]}},
            },
        },
        "data": {
            "class_path": "Merged",
            "init_args": {
                "datasets": {
                    "phantom": {"class_path": "PhantomDataModule",
                                "init_args": {"n_images": 12, "size": 32}},
                    "a": {"class_path": "CXRDataModule", "init_args": {"index": a._source}},
                },
                "balance": 0.0,
                "batch_size": 4,
                "num_workers": 0,
            },
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(tmp_path / "r"),
                    "callbacks": [], "limit_val_batches": 0, "log_every_n_steps": 1,
                    "enable_progress_bar": False},
    }  # fmt: skip
    file = tmp_path / "merged.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(file)]) == 0
    assert list((tmp_path / "r").glob("version_0/checkpoints/*.ckpt"))

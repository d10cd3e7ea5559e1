import pandas as pd
import pytest

from cxrssl.data import validate_index
from cxrssl.data.duplicates import Copies, find_leaks, leak_level, trained_on
from cxrssl.data.duplicates.relations import Group, groups, relation
from tests.data.duplicates.pictures import jpeg, picture, rows


def index(dataset, *paths, **columns):
    return validate_index(pd.DataFrame({"path": paths, "dataset": dataset, **columns}))


def level(pretraining, evaluation, copies=None):
    leaks = find_leaks(pretraining, evaluation, copies)
    return leak_level(pretraining, evaluation, leaks, copies)


def named(dataset, *numbers, prefix="nih"):
    """Return an index of images with origins and patients: image 12 is image 2 of patient 1."""
    return index(
        dataset,
        *(f"{dataset}/{number}" for number in numbers),
        origin=[f"{prefix}:{number}.png" for number in numbers],
        origin_patient=[f"{prefix}:{number // 10}" for number in numbers],
    )


NIH = named("NIHChestXray14", 11, 12, 21)


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        (named("RSNAPneumonia", 12, 31), "L0"),
        (named("RSNAPneumonia", 13, 31), "L1"),
        (named("RSNAPneumonia", 31, 32), "L2"),
        (named("RSNAPneumonia", 31, 32, prefix="rsna"), "unknown"),
        (named("CXRLT", 11, prefix="mimic"), "L2"),
        (index("SIIMPneumothorax", "a"), "unknown"),
        (index("ChestXDet", "a"), "unknown"),
        (index("ChestMNIST", "a"), "unknown"),
        (index("COVIDx", "a"), "unknown"),
        (index("VinDrCXR", "a"), "L2"),
        (index("OurHospital", "a", patient_id=["1"]), "unknown"),
        (index(None, "a"), "unknown"),
    ],
)
def test_level_by_names(evaluation, expected):
    assert level(NIH, evaluation).name == expected


def test_leaks_by_names_are_told_with_their_reason():
    evaluation = named("RSNAPneumonia", 12, 13, 31)
    leaks = find_leaks(NIH, evaluation)
    assert leaks["evaluation"].tolist() == ["RSNAPneumonia/12", "RSNAPneumonia/13"]
    assert leaks["pretraining"].tolist() == ["NIHChestXray14/12", "NIHChestXray14/11"]
    assert leaks["reason"].tolist() == ["same origin", "same patient"]
    assert leaks["distance"].isna().all()
    assert str(level(NIH, evaluation)) == (
        "L0 (1 of 3 evaluation images are in pretraining; by name)"
    )


def test_patients_of_one_dataset_are_known_by_their_numbers():
    whole = index("Ours", "a", "b", "c", patient_id=["1", "1", "2"], split=["train"] * 2 + ["test"])
    test = whole[whole["split"] == "test"]
    assert level(trained_on(whole), test).name == "L2"
    assert find_leaks(whole, index("Ours", "d", patient_id=["1"]))["reason"].tolist() == [
        "same patient"
    ]
    assert find_leaks(whole, index("Theirs", "d", patient_id=["1"])).empty
    assert find_leaks(whole, index("Ours", "a"))["reason"].tolist() == ["same file"]
    assert level(whole, index("Ours", "d")).name == "unknown"


def test_the_training_split_is_trained_on_or_all_of_an_index_without_splits():
    assert len(trained_on(NIH)) == 3
    assert len(trained_on(NIH.assign(split=["train", "val", "test"]))) == 1


@pytest.fixture
def hashed():
    """Return NIH's images, four of SIIM that are copies of two of them, and the comparison."""
    pictures = [picture(seed) for seed in range(3)]
    copied = [pictures[0], jpeg(pictures[0][:, ::-1]), jpeg(pictures[2]), picture(9)]
    siim = index("SIIMPneumothorax", "w", "x", "y", "z", split=["test"] * 4)
    paths = [*NIH["path"], *siim["path"]]
    return siim, Copies(paths, rows([*pictures, *copied]))


def test_hashes_find_what_no_name_tells(hashed):
    siim, copies = hashed
    leaks = find_leaks(NIH, siim, copies)
    assert leaks["evaluation"].tolist() == ["w", "x", "y"]
    assert leaks["pretraining"].tolist() == [NIH["path"][0], NIH["path"][0], NIH["path"][2]]
    assert leaks["reason"].tolist() == ["exact duplicate", "near duplicate", "near duplicate"]
    assert leaks["split"].tolist() == ["test"] * 3
    assert leaks["distance"].between(0, 4).all()
    assert level(NIH, siim, copies).name == "L0"


def test_hashes_alone_do_not_tell_patients(hashed):
    siim, copies = hashed
    clean = level(NIH, siim.iloc[3:], copies)
    assert clean.name == "L1"
    assert "patients of NIHChestXray14 and SIIMPneumothorax cannot be compared" in str(clean)
    assert level(NIH.iloc[1:2], siim, copies).name == "L1"


def test_copies_within_evaluation_are_no_leak(hashed):
    siim, copies = hashed
    assert find_leaks(siim.iloc[3:], siim.iloc[:2], copies).empty


def test_many_copies_on_both_sides_are_all_told(hashed, monkeypatch):
    siim, copies = hashed
    everything = find_leaks(NIH, siim, copies)["evaluation"].tolist()
    monkeypatch.setattr("cxrssl.data.duplicates.copies._MOST", 0)
    assert find_leaks(NIH, siim, copies)["evaluation"].tolist() == everything


def group(dataset, collection, **known):
    flags = {"origin": False, "owner": False, "patient": False} | known
    return Group(dataset, collection, **flags)


def test_relations_of_collections():
    nih = group("NIHChestXray14", "nih")
    assert relation(nih, group("x", "siim")) == "related"
    assert relation(group("y", "covidx"), group("x", "siim")) == "related"
    assert relation(group("y", "pneumoniamnist"), group("x", "kermany")) == "related"
    assert relation(nih, group("x", "mimic")) == "unrelated"
    assert relation(nih, group("x", "nih")) == "same"
    assert relation(nih, group("x", None)) == "unknown"
    assert relation(group("x", None), group("x", None)) == "same"


def test_the_collection_is_that_of_the_origin_or_of_the_class():
    frame = index("RSNAPneumonia", "a", "b", "c", origin=["nih:1.png", "rsna:2", None])
    found = {(group.dataset, group.collection, group.origin) for group in groups(frame)}
    assert found == {
        ("RSNAPneumonia", "nih", True),
        ("RSNAPneumonia", "rsna", True),
        ("RSNAPneumonia", "rsna", False),
    }
    assert groups(index("Siim", "a"))[0].collection == "siim"
    assert groups(index(None, "a")) == [group("", None)]

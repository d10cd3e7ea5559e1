import re

import numpy as np
import pytest
import torch

from cxrssl.data.phantom import FINDINGS, Phantom
from cxrssl.data.phantom_datamodule import PhantomDataModule
from tests.data.labelled import views


def phantom(n=40, size=32, **options):
    defaults = {"batch_size": 4, "num_workers": 0, "seed": 0, "split": (0.5, 0.25, 0.25)}
    return PhantomDataModule(n, size, **(defaults | options))


@pytest.mark.parametrize("kept", [True, False])
def test_masks_of_the_phantom_are_those_it_draws(monkeypatch, kept):
    if not kept:
        monkeypatch.setattr("cxrssl.data.phantom_datamodule._DRAWN_BYTES", 0)
    data = phantom()
    assert data.structures == ["lungs", "heart", *FINDINGS]
    rows = data.rows("val")
    for structures in (["heart", "nodule"], ["lungs"]):
        masks = data.make_masks(rows, structures)
        for number in (0, len(rows) - 1):
            drawn = Phantom(32).draw(int(rows["path"].iloc[number].removeprefix("phantom/"))).masks
            read = masks.read(number, (32, 32))
            assert read.dtype == np.uint8
            np.testing.assert_array_equal(read, [drawn[name] for name in structures])


def test_a_phantom_trains_on_masks_in_workers():
    made = views(("nodule",), ("lungs", "heart"), True)
    alone, shared = (list(phantom(views=made, num_workers=n).train_dataloader()) for n in (0, 2))
    for left, right in zip(alone, shared, strict=True):
        assert torch.equal(left["masks"], right["masks"])
        assert left["text"] == right["text"]
    assert all(batch["masks"][:, 0].any() for batch in alone)


def test_reports_of_the_phantom_are_true_and_always_the_same():
    index = phantom(200, phantom_seed=3).index
    assert index["text"].tolist() == phantom(200, phantom_seed=3).index["text"].tolist()
    assert index["text"].tolist()[:40] == phantom(40, phantom_seed=3).index["text"].tolist()
    words = {
        "cardiomegaly": ("heart", "cardiac", "cardiomegaly"),
        "effusion": ("effusion",),
        "pneumothorax": ("pneumothorax",),
        "nodule": ("nodule",),
        "consolidation": ("consolidation",),
    }
    seen = {name: set() for name in words}
    for _, row in index.iterrows():
        sentences = row["text"].removesuffix(".").split(". ")
        assert len(sentences) == len(words) == len(FINDINGS)
        for name, said in words.items():
            (sentence,) = [s.lower() for s in sentences if any(word in s.lower() for word in said)]
            absent = re.search(r"\b(no|not|normal|clear)\b", sentence) is not None
            assert absent == (row[name] == 0), sentence
            seen[name].add(sentence)
    assert sum(map(len, seen.values())) == 19
    assert index["text"].nunique() > 50

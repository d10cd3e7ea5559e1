import numpy as np
import pytest

from cxrssl.analysis import neighbours
from cxrssl.analysis.neighbours import Neighbours, label_agreement, nearest_images
from cxrssl.errors import InputError


@pytest.mark.parametrize("at_once", [1, 2**24])
def test_neighbours_are_the_largest_cosines_of_other_patients(monkeypatch, at_once):
    monkeypatch.setattr(neighbours, "_ENTRIES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    queries, images = rng.normal(size=(4, 6)), rng.normal(size=(9, 6))
    owners, whose = ["a", "b", None, "c"], list("aabbccdde")
    found = nearest_images(queries, images, 3, query_patients=owners, patients=whose)
    for row, (query, owner) in enumerate(zip(queries, owners, strict=True)):
        cosine = images @ query / np.linalg.norm(images, axis=1) / np.linalg.norm(query)
        cosine[[who == owner for who in whose]] = -2
        order = np.argsort(-cosine)[:3]
        assert found.numbers[row].tolist() == order.tolist()
        np.testing.assert_allclose(found.similarity[row], cosine[order])


def test_too_many_neighbours_are_refused():
    with pytest.raises(InputError, match="k must be from 1 to 2"):
        nearest_images(np.ones((1, 2)), np.ones((3, 2)), 3, query_patients=["a"], patients="abb")


def test_agreement_is_precision_at_k_over_known_labels():
    found = Neighbours(np.array([[0, 1], [2, 3], [0, 2]]), np.ones((3, 2)))
    labels = np.array([[1, 0], [0, 0], [np.nan, 1], [1, -1]])
    queries = np.array([[1, 0], [1, 1], [0, np.nan]])
    table = label_agreement(found, queries, labels, ["Edema", "Mass"], patients=["p", "q", "r"])
    edema, mass = table.to_dict("records")
    assert edema["value"] == pytest.approx((0.5 + 1) / 2)
    assert (edema["images"], edema["patients"]) == (2, 2)
    assert edema["chance"] == pytest.approx(2 / 3)
    assert edema["low"] == 0.5
    assert edema["high"] == 1
    assert mass["value"] == 1  # the uncertain neighbour has no say
    assert np.isnan(mass["low"])  # of one patient

import numpy as np
import pandas as pd
import pytest

from cxrssl.data.duplicates import LOOKS, cluster, find, find_duplicates
from tests.data.duplicates.pictures import COPIES, picture, rows


@pytest.fixture(scope="module")
def originals():
    return [picture(seed) for seed in range(30)]


def pairs_of(table):
    return set(zip(table["first"], table["second"], strict=True))


@pytest.mark.parametrize("look", LOOKS)
def test_copies_are_found_and_what_was_done_to_them(originals, look):
    for copy in COPIES[look]:
        found = find_duplicates(rows([*originals, *map(copy, originals)]))
        assert pairs_of(found) == {(n, n + 30) for n in range(30)}
        assert (found["look"] == look).mean() > 0.9
        assert (found["reason"] == "near duplicate").all()
        assert found["distance"].between(0, 4).all()
        assert found["correlation"].between(0.97, 1.0001).all()


def test_the_search_equals_comparing_each_with_each(originals):
    rng = np.random.default_rng(0)
    noisy = [
        np.clip(grey + rng.normal(0, 25 * rng.random(), grey.shape), 0, 255).astype(np.uint8)
        for grey in originals[:20] * 3
    ]
    table = rows([*originals, *noisy])
    hashes = [np.frombuffer(value, ">u8").reshape(-1, 4) for value in table["hashes"]]
    thumbnails = [
        np.frombuffer(value, np.uint8).reshape(-1, 32, 32) for value in table["thumbnails"]
    ]
    looks = (lambda x: x, lambda x: x[:, ::-1], lambda x: 255 - x, lambda x: 255 - x[:, ::-1])

    def alike(i, j):
        return any(
            np.bitwise_count(hashes[i][a, 0] ^ hashes[j][b, number]) <= 4
            and np.corrcoef(thumbnails[i][a].ravel(), look(thumbnails[j][b]).ravel())[0, 1] >= 0.97
            for a in range(2)
            for b in range(2)
            for number, look in enumerate(looks)
        )

    expected = {(i, j) for i in range(90) for j in range(i + 1, 90) if alike(i, j)}
    assert pairs_of(find_duplicates(table)) == expected
    assert len(expected) > 60


def test_equal_pixels_and_equal_names_are_pairs_with_the_first(originals):
    table = rows([originals[0], originals[1], originals[0], originals[0], originals[2]])
    names = pd.Series(pd.array([None, "nih:1", None, None, "nih:1"], dtype="string"))
    found = find_duplicates(table, names)
    assert found[["first", "second", "reason"]].to_numpy().tolist() == [
        [1, 4, "same origin"],
        [0, 2, "exact duplicate"],
        [0, 3, "exact duplicate"],
    ]
    assert cluster(5, found).tolist() == [0, 1, 0, 0, 1]


def test_images_without_a_fingerprint_are_copies_of_nothing(originals):
    table = rows([np.zeros((9, 9), np.uint8)] * 3 + originals[:2] * 2)
    table.loc[3, ["state", "exact", "hashes", "thumbnails"]] = ["missing", None, None, None]
    assert pairs_of(find_duplicates(table)) == {(4, 6)}
    assert find_duplicates(table.iloc[:0]).empty
    assert find_duplicates(table.iloc[:3]).empty


def test_many_pictures_of_one_hash_are_compared_with_few(originals, monkeypatch):
    grey = originals[0]
    pictures = [grey.copy() for _ in range(40)]
    for number, each in enumerate(pictures):
        each[number, number] ^= 1
    table = rows([*pictures, *originals[1:4]])
    every = find_duplicates(table)
    monkeypatch.setattr(find, "_MOST_ALIKE", 3)
    few = find_duplicates(table)
    assert len(few) < len(every) / 4
    assert cluster(43, few).tolist() == cluster(43, every).tolist() == [0] * 40 + [-1] * 3


def test_clusters_join_chains_and_are_numbered_by_their_first_image():
    pairs = pd.DataFrame({"first": [4, 1, 0], "second": [5, 3, 1]})
    assert cluster(6, pairs).tolist() == [0, 0, -1, 0, 1, 1]
    assert cluster(2, pairs.iloc[:0]).tolist() == [-1, -1]

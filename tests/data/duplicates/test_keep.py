import numpy as np
import pandas as pd
import pytest

from cxrssl.data.duplicates import DROPPED, best_copies, keep_one
from tests.data.duplicates.pictures import jpeg, picture, rows, smaller


def table(**columns):
    n = len(columns["path"])
    made = {"state": "ok", "height": 100, "width": 100, "bits": 8, "hashes": None, "exact": None}
    return pd.DataFrame({"path": columns["path"]}), pd.DataFrame(
        {name: columns.get(name, [value] * n) for name, value in made.items()}
    )


@pytest.mark.parametrize(
    ("columns", "best"),
    [
        ({"path": ["a.jpg", "a.png", "b.png", "a.dcm"], "bits": [8, 8, 16, 8]}, 3),
        ({"path": ["a.jpg", "a.png", "b.tif", "a.JPEG"], "bits": [8, 8, 16, 8]}, 2),
        ({"path": ["a.jpg", "a.npz#3", "b.jpeg"]}, 1),
        ({"path": ["a.dcm", "a.png"], "state": ["unreadable", "ok"]}, 1),
        ({"path": ["a.png", "a.jpg", "b.jpg"], "height": [29, 120, 100]}, 1),
        ({"path": ["a.png", "a.jpg"], "height": [26, 100]}, 0),
        ({"path": ["b.png", "a.png"]}, 0),
    ],
)
def test_the_best_format_is_kept_unless_it_is_a_reduced_copy(columns, best):
    index, fingerprints = table(**columns)
    clusters = np.zeros(len(index), dtype=np.int64)
    assert best_copies(index, fingerprints, clusters).tolist() == [best] * len(index)


def test_richer_metadata_decide_between_equal_formats_and_a_rank_before_all():
    index, fingerprints = table(path=["a.png", "b.png", "c.dcm"])
    index = index.assign(sex=[None, "F", None])
    together = np.array([0, 0, -1])
    assert best_copies(index, fingerprints, together).tolist() == [1, 1, 2]
    rank = np.array([2, 1, 0])
    assert best_copies(index, fingerprints, np.zeros(3, int), rank).tolist() == [0, 0, 0]


def test_what_is_dropped_and_why():
    grey, other = picture(0), picture(1)
    pictures = [jpeg(grey), grey, grey, other, smaller(picture(2)), 255 - other[:, ::-1]]
    fingerprints = rows(pictures)
    paths = ["a.jpg", "b.png", "c.jpg", "d.jpg", "e.jpg", "f.png"]
    origin = pd.array([None, None, None, "nih:1", None, "nih:1"], dtype="string")
    index = pd.DataFrame({"path": paths, "origin": origin}, index=range(10, 16))
    kept, dropped = keep_one(index, fingerprints)
    assert kept["path"].tolist() == ["b.png", "e.jpg", "f.png"]
    assert tuple(dropped) == DROPPED
    assert dropped["dropped"].tolist() == ["a.jpg", "c.jpg", "d.jpg"]
    assert dropped["kept"].tolist() == ["b.png", "b.png", "f.png"]
    assert dropped["reason"].tolist() == ["near duplicate", "exact duplicate", "same origin"]
    assert dropped["distance"].between(0, 4).all()


def test_an_index_without_copies_stays_as_it_is():
    index = pd.DataFrame({"path": ["a.png", "b.png"]})
    kept, dropped = keep_one(index, rows([picture(0), picture(1)]))
    pd.testing.assert_frame_equal(kept, index)
    assert dropped.empty

import os

import cv2
import pandas as pd
import pytest

from cxrssl.data import ImageFiles
from cxrssl.data.duplicates import (
    fingerprint_images,
    known_fingerprints,
    read_fingerprints,
    store,
    write_fingerprints,
)
from cxrssl.errors import InputError
from tests.data.duplicates.pictures import picture, rows


@pytest.fixture
def paths(tmp_path):
    found = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, path in enumerate(found):
        cv2.imwrite(path, picture(number))
    return found


def opened(paths, file=None, **options):
    """Return the rows, and which images were read for them."""
    names = []

    class Watched(ImageFiles):
        def name(self, number):
            names.append(super().name(number))
            return names[-1]

    return fingerprint_images(Watched(paths), paths, file, **options), names


def test_rows_follow_the_keys_and_say_what_is_wrong(paths, tmp_path):
    cv2.imwrite(paths[1], picture(1)[:, :60].astype("uint16") * 257)
    cv2.imwrite(paths[2], picture(2) * 0)
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n but nothing else")
    found, _ = opened([*paths, str(tmp_path / "none.png")])
    assert found["key"].tolist() == [*paths, str(tmp_path / "none.png")]
    assert found["state"].tolist() == ["ok", "ok", "blank", "unreadable", "missing"]
    assert "PNG" in found["cause"][3]
    assert found["cause"][4] == "no such file"
    assert found[["height", "width", "bits"]].iloc[1].tolist() == [96, 60, 16]
    assert found["exact"][0] == rows([picture(0)])["exact"][0]
    assert found.loc[3:, ["height", "exact", "hashes", "thumbnails"]].isna().all(axis=None)


def test_a_rerun_opens_only_new_and_changed_files(paths, tmp_path):
    file = tmp_path / "kept.parquet"
    first, names = opened(paths[:3], file)
    assert names == paths[:3]
    again, names = opened(paths[:3], file)
    assert names == []
    pd.testing.assert_frame_equal(first, again)
    os.utime(paths[1], ns=(0, 0))
    cv2.imwrite(paths[2], picture(9))
    _, names = opened(paths[::-1], file)
    assert sorted(names) == paths[1:]
    assert opened(paths, file)[1] == []


def test_what_cannot_be_read_is_tried_again(paths, tmp_path):
    file = tmp_path / "kept.parquet"
    (tmp_path / "3.png").write_bytes(b"nothing")
    opened(paths, file)
    assert opened(paths, file)[1] == paths[3:]


def test_workers_make_the_same_rows(paths):
    pd.testing.assert_frame_equal(opened(paths)[0], opened(paths, workers=2)[0])


def test_what_was_made_before_an_interruption_is_kept(paths, tmp_path, monkeypatch):
    file = tmp_path / "kept.parquet"
    monkeypatch.setattr(store, "_BATCH", 1)

    class Interrupted(ImageFiles):
        def name(self, number):
            if number == 2:
                raise KeyboardInterrupt
            return super().name(number)

    with pytest.raises(KeyboardInterrupt):
        fingerprint_images(Interrupted(paths), paths, file)
    assert opened(paths, file)[1] == paths[2:]


def test_images_that_are_no_files_are_known_by_their_keys(tmp_path):
    file = tmp_path / "kept.parquet"
    pictures = [picture(0), picture(1)]
    first = fingerprint_images(pictures, ["made/0", "made/1"], file)
    assert first["state"].tolist() == ["ok", "ok"]
    again = fingerprint_images([None, None], ["made/0", "made/1"], file)
    pd.testing.assert_frame_equal(first, again)


def test_unknown_images_are_told(paths, tmp_path):
    file = tmp_path / "kept.parquet"
    opened(paths[:2], file)
    known = known_fingerprints(paths, read_fingerprints(file))
    assert known["state"].notna().tolist() == [True, True, False, False]


def test_a_file_of_another_version_is_not_used_and_others_are_refused(paths, tmp_path):
    file = tmp_path / "kept.parquet"
    found, _ = opened(paths, file)
    found.to_parquet(file)
    assert read_fingerprints(file).empty
    write_fingerprints(file, found)
    assert len(read_fingerprints(file)) == 4
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read as fingerprints"):
        read_fingerprints(file)

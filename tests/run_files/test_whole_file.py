import os
import time
from datetime import timedelta

import pytest

from cxrssl.run_files import remove_leftovers, written_whole


def test_a_file_takes_its_place_at_the_end(tmp_path):
    path = tmp_path / "new" / "file"
    for content in ("first", "second"):
        with written_whole(path) as temporary:
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == content
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_file_before(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(IsADirectoryError), written_whole(path) as temporary:
        temporary.parent.write_text("")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_are_removed_where_nobody_is_at_work(tmp_path):
    old, young, kept = (tmp_path / name for name in (".a.1.part", "sub/.b.2.part", "c.part"))
    young.parent.mkdir()
    for path in (old, young, kept):
        path.write_text("half")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    remove_leftovers(tmp_path, older_than=timedelta(hours=1))
    assert young.exists()
    assert not old.exists()
    remove_leftovers(tmp_path)
    assert not young.exists()
    assert kept.exists()

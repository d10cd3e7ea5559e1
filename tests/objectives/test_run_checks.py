from types import SimpleNamespace

import pytest
from torch import distributed as dist

from cxrssl.errors import InputError
from cxrssl.objectives.run_checks import check_start


def gathered(monkeypatch, *others):
    """Let processes on other nodes have found what is given."""

    def gather(found, here):
        found[:] = [here, *others]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    return 1 + len(others)


def test_processes_that_find_the_same_checkpoint_may_start(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.touch()
    n = gathered(monkeypatch, ("node1", str(path)))
    check_start(SimpleNamespace(ckpt_path=str(path), world_size=n))
    check_start(SimpleNamespace(ckpt_path=str(path), world_size=1))


def test_none_at_all_may_start(monkeypatch):
    n = gathered(monkeypatch, ("node1", "none"))
    check_start(SimpleNamespace(ckpt_path=None, world_size=n))


def test_a_checkpoint_that_another_node_lacks_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    path.touch()
    n = gathered(monkeypatch, ("node1", "none"), ("node1", "none"))
    message = rf"{path} on .*, none on node1\): put .*default_root_dir on a disk that all"
    with pytest.raises(InputError, match=message):
        check_start(SimpleNamespace(ckpt_path=str(path), world_size=n))


def test_a_folder_of_shards_is_refused_with_what_makes_one_file_of_it(tmp_path):
    (tmp_path / ".metadata").touch()
    with pytest.raises(InputError, match=f"consolidate_checkpoint {tmp_path}"):
        check_start(SimpleNamespace(ckpt_path=str(tmp_path), world_size=1))

import os
import zipfile

import pytest

from cxrssl.run_files import last_checkpoint

NAMES = ("version_1/checkpoints/last.ckpt", "version_0/checkpoints/a.ckpt", "hpc_ckpt_1.ckpt")


def whole_file(path, time):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "content")
    os.utime(path, (time, time))


def test_last_checkpoint_is_the_newest_of_all_runs(tmp_path):
    assert last_checkpoint(tmp_path) is None
    for number, name in enumerate(NAMES):
        path = tmp_path / name
        whole_file(path, number)
        assert last_checkpoint(tmp_path) == str(path)
    (tmp_path / "version_1" / "checkpoints" / "gone.ckpt").symlink_to("nowhere")
    assert last_checkpoint(tmp_path) == str(path)


def test_a_file_that_was_cut_off_is_passed_over(tmp_path):
    good, broken = (tmp_path / name for name in NAMES[:2])
    whole_file(good, 1)
    whole_file(broken, 2)
    broken.write_bytes(broken.read_bytes()[:-30])
    with pytest.warns(UserWarning, match="a.ckpt is no whole checkpoint"):
        assert last_checkpoint(tmp_path) == str(good)

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrssl.data.caching import Encoding, encode_once
from cxrssl.data.dataset import EvalDataset
from cxrssl.data.features import FeatureStore
from cxrssl.data.loader import plan_loader
from cxrssl.data.sampler import FixedBatchSampler
from cxrssl.data.sources import ImageFiles
from cxrssl.errors import InputError
from cxrssl.views import EvalView
from tests.data.stand_ins import write_images
from tests.distributed import run_two

VIEW = EvalView(image_size=8, mean=0.0, std=1.0)


def encode(images):
    """Return two levels: the grey values of an image as 4 tokens, and their mean."""
    return [images.reshape(len(images), 4, 16), images.mean((1, 2, 3))[:, None, None]]


def encoding(folder, **options):
    description = {"encoder": "abc", "levels": [0, 1]}
    made = Encoding(
        encode, [(4, 16), (1, 1)], description, torch.device("cpu"), str(folder), "float32"
    )
    return replace(made, **options)


def loader(paths, view=VIEW, rank=0, world_size=1):
    dataset = EvalDataset(ImageFiles(paths), view, np.zeros((len(paths), 0), np.float32))
    sampler = FixedBatchSampler(np.arange(len(paths)), 3, rank, world_size)
    return plan_loader(dataset, sampler, num_workers=0, pin_memory=False)


def store_of(paths, folder, view=VIEW, **options):
    return encode_once(encoding(folder, **options), loader(paths, view), paths, view)


def unread():
    """Stand in for a loader that must not be read."""
    raise AssertionError("images were encoded again")
    yield


def found(paths, folder, view=VIEW, **options):
    return encode_once(encoding(folder, **options), unread(), paths, view)


def grey(store):
    return [round(255 * value) for value in store.read(np.arange(len(store)))[1].flatten().tolist()]


@pytest.fixture
def paths(tmp_path):
    return write_images(tmp_path, 8, corrupt=(5,))


def test_images_are_encoded_once_and_found_again(tmp_path, paths):
    store = store_of(paths, tmp_path / "cache")
    assert grey(store) == [0, 1, 2, 3, 4, 0, 6, 7]
    assert store.readable.tolist() == [number != 5 for number in range(8)]
    again = found(paths, tmp_path / "cache")
    assert again.folder == store.folder
    assert torch.equal(again.read(np.arange(8))[0], store.read(np.arange(8))[0])


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float16"},
        {"description": {"encoder": "abd", "levels": [0, 1]}},
        {"description": {"encoder": "abc", "levels": [0, 2]}},
        {"view": EvalView(image_size=8, mean=0.1, std=1.0)},
        {"view": EvalView(image_size=8, mean=0.0, std=0.9)},
        {"view": EvalView(image_size=8, mean=0.0, std=1.0, resize=9)},
        {"view": EvalView(image_size=8, mean=0.0, std=1.0, rescale=True)},
        {"view": EvalView(image_size=8, mean=0.0, std=1.0, resampling="pillow")},
    ],
)
def test_what_differs_has_another_store(tmp_path, paths, options):
    store = store_of(paths, tmp_path / "cache")
    with pytest.raises(AssertionError, match="encoded again"):
        found(paths, tmp_path / "cache", **options)
    other = store_of(paths, tmp_path / "cache", **options)
    assert other.folder != store.folder
    assert found(paths, tmp_path / "cache").folder == store.folder


def touch(path):
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def grow(path):
    status = os.stat(path)
    Path(path).write_bytes(Path(path).read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda paths: touch(paths[3]),
        lambda paths: grow(paths[3]),
        lambda paths: os.remove(paths[3]),
        lambda paths: paths.reverse(),
        lambda paths: paths.pop(),
    ],
)
def test_other_images_have_another_store(tmp_path, paths, change):
    store_of(paths, tmp_path / "cache")
    change(paths)
    with pytest.raises(AssertionError, match="encoded again"):
        found(paths, tmp_path / "cache")


def test_rows_of_an_archive_are_other_images_when_the_archive_is(tmp_path):
    archive = tmp_path / "images.npz"
    rows = [f"{archive}#{row}" for row in range(3)]
    for level in (10, 20):
        np.savez(archive, images=np.full((3, 8, 8), level, np.uint8))
        os.utime(archive, (level, level))
        assert grey(store_of(rows, tmp_path / "cache")) == [level] * 3
    assert grey(found(rows, tmp_path / "cache")) == [20] * 3


def test_neighbouring_names_are_kept_apart(tmp_path):
    first = encode_once(encoding(tmp_path), [], ["ab", "c"], VIEW)
    assert encode_once(encoding(tmp_path), [], ["a", "bc"], VIEW).folder != first.folder


def test_a_write_that_breaks_off_is_done_again(tmp_path, paths):
    def breaking():
        yield next(iter(loader(paths)))
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="the power is gone"):
        encode_once(encoding(tmp_path / "cache"), breaking(), paths, VIEW)
    assert grey(store_of(paths, tmp_path / "cache"))[6:] == [6, 7]
    left = [path.name for path in (tmp_path / "cache").iterdir() if not path.name.endswith(".lock")]
    assert len(left) == 1


def test_a_damaged_store_is_said_and_not_used(tmp_path, paths):
    store = store_of(paths, tmp_path / "cache")
    (store.folder / "level0.npy").unlink()
    with pytest.raises(InputError, match="delete it, and they are made again"):
        found(paths, tmp_path / "cache")


def test_a_cache_that_cannot_be_written(tmp_path, paths):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"the cache .*cache cannot be written \(File exists\)"):
        store_of(paths, tmp_path / "cache")


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_a_run_waits_for_another_that_makes_the_same_store(tmp_path, paths):
    """The other run is killed, which releases the lock, and this one makes the store."""
    folder = store_of(paths, tmp_path / "cache").folder
    folder.rename(tmp_path / "moved")
    lock = folder.with_name(f".{folder.name}.lock")
    command = [sys.executable, "-S", "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=store_of, args=(paths, tmp_path / "cache"))
        waiting.start()
        waiting.join(timeout=0.3)
        assert waiting.is_alive()
        assert not folder.exists()
        other.kill()
        waiting.join(timeout=60)
    assert grey(FeatureStore(folder))[6:] == [6, 7]


def test_the_store_of_a_run_that_was_waited_for_is_used(tmp_path, paths):
    folder = store_of(paths, tmp_path / "cache").folder
    folder.rename(tmp_path / "moved")
    lock = folder.with_name(f".{folder.name}.lock")
    command = [sys.executable, "-S", "-c", HOLD, str(lock)]
    stores = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        waiting = threading.Thread(target=lambda: stores.append(found(paths, tmp_path / "cache")))
        waiting.start()
        waiting.join(timeout=0.3)
        (tmp_path / "moved").rename(folder)
        other.kill()
        waiting.join(timeout=60)
    assert grey(stores[0])[6:] == [6, 7]


def share(rank, paths, folder):
    """Encode a share of the images; return the store's name, its tokens and what is found again."""
    batches = loader(paths, rank=rank, world_size=2)
    # The first process says which images these are: the other may see other times of files.
    seen = ["elsewhere"] * len(paths) if rank else paths
    store = encode_once(encoding(folder), batches, seen, VIEW, rank)
    again = encode_once(encoding(folder), unread(), seen, VIEW, rank)
    return str(store.folder), store.read(np.arange(len(store))), again.readable


def test_two_processes_write_the_store_of_one(tmp_path, paths):
    first, second = run_two(share, tmp_path, paths, tmp_path / "two")
    one = store_of(paths, tmp_path / "one")
    assert first[0] == second[0]
    assert Path(first[0]).name == one.folder.name
    for levels in (first[1], second[1]):
        for level, expected in zip(levels, one.read(np.arange(8)), strict=True):
            assert torch.equal(level, expected)
    assert first[2].tolist() == second[2].tolist() == one.readable.tolist()
    for name in ("level0.npy", "level1.npy", "readable.npy", "features.json"):
        assert (Path(first[0]) / name).read_bytes() == (one.folder / name).read_bytes()

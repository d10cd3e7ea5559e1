"""Runs that are killed, stopped, starved and cut short go on as if nothing had been."""

import re
import signal
import subprocess

import numpy as np
import pytest
import yaml

from cxrssl.data.phantom import Phantom, write_png
from cxrssl.data.sampler import PlannedBatchSampler
from tests.fault_harness import EXPECTED, KILLS, Run, campaign, hurt, members
from tests.nursery import Nursery

SENTENCES = {
    "full": r"cannot write the checkpoint .*recent\.ckpt: No space left on device \(errno 28\)",
    "worker": r"DataLoader worker \(pid.*is killed by signal: Killed.*data\.num_workers.*lower",
    "SIGTERM": r"stopped by SIGTERM after step \d+: .*recent\.ckpt is written.*--ckpt_path last",
    "SIGINT": r"stopped by SIGINT after step \d+",
    "SIGUSR1": r"stopped by SIGUSR1 after step \d+",
}
IMAGES, BATCH, SEED = 30, 4, 3


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as started:
        yield started


@pytest.fixture(scope="module")
def whole(nursery, tmp_path_factory):
    """Return the run that is left alone."""
    return left_alone(Run(nursery, tmp_path_factory.mktemp("runs") / "whole"))


def left_alone(run):
    code, text = run.fit()
    assert code == 0, text
    return run


def assert_survives(run, whole, kinds, seed=0):
    """Hurt a run in these ways one after the other; it must lose nothing and end as the other."""
    rng = np.random.default_rng(seed)
    for kind in kinds:
        before = run.saved()
        code, text = hurt(run, kind, rng)
        assert code == EXPECTED.get(kind, -signal.SIGKILL), text
        assert run.saved() >= before
        assert run.orphans() == []
        if kind in SENTENCES:
            assert re.search(SENTENCES[kind], text), text
            assert "Traceback" not in text
    left_alone(run)
    assert run.equals(whole)


def test_a_run_survives_a_kill_a_signal_of_slurm_and_the_loss_of_a_worker(nursery, whole, tmp_path):
    run = Run(nursery, tmp_path / "run", workers=2)
    assert_survives(run, whole, ["checkpoint", "SIGUSR1", "worker"])
    assert (run.folder / "scontrol.calls").read_text() == "requeue 12345\n"


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [KILLS, ("full", "SIGTERM", "SIGINT", "SIGKILL")])
def test_a_run_survives_every_fault(nursery, whole, tmp_path, kinds):
    assert_survives(Run(nursery, tmp_path / "run", workers=2), whole, kinds)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_runs_survive_kills_at_random_moments(nursery, tmp_path, seed):
    rng = np.random.default_rng(seed)
    table, runs = campaign(nursery, tmp_path, 10, rng, ["SIGKILL"], steps=40)
    assert table["SIGKILL"]["equal"] == table["SIGKILL"]["times"] == 10
    assert table["SIGKILL"]["lost"] == table["SIGKILL"]["orphans"] == 0
    assert runs["equal"] == runs["all"]


@pytest.mark.slow
def test_signals_between_micro_batches_take_effect_after_the_step(nursery, tmp_path):
    flags = ["--trainer.max_steps=40"]  # so that it does not end before the last signal
    whole = left_alone(Run(nursery, tmp_path / "whole", accumulate=2, flags=flags))
    run = Run(nursery, tmp_path / "run", workers=2, accumulate=2, flags=flags)
    assert_survives(run, whole, ["SIGTERM", "SIGUSR1", "SIGTERM", "SIGINT"])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fully_sharded"])
def test_runs_of_two_processes_survive(nursery, tmp_path, strategy):
    flags = [
        f"--trainer.strategy={strategy}",
        "--trainer.devices=2",
        "--data.init_args.batch_size=2",
    ]
    whole = left_alone(Run(nursery, tmp_path / "whole", flags=flags))
    run = Run(nursery, tmp_path / "run", workers=1, flags=flags)
    assert_survives(run, whole, ["checkpoint", "SIGTERM", "SIGKILL"])


@pytest.mark.slow
def test_a_disk_that_is_really_full(nursery, whole, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs rights that are missing here")
    try:
        run = Run(nursery, folder / "run")
        run.start()
        run.wait_for(3)
        filler = folder / "filler"
        try:
            filler.write_bytes(b"0" * 2**22)
        except OSError:
            saved = run.saved()
        code, text = run.end()
        assert code == 1
        assert re.search(r"No space left on device|no space left", text)
        assert run.saved() >= saved > 0
        filler.unlink()
        left_alone(run)
        assert run.equals(whole)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_file_that_breaks_within_a_run_is_replaced_as_if_it_had_been_broken(nursery, tmp_path):
    order = PlannedBatchSampler(IMAGES, BATCH, SEED).order(0)
    victim = int(order[5 * BATCH])  # is shown in the sixth step first
    runs = []
    for name in ("whole", "run"):
        folder = tmp_path / name / "images"
        folder.mkdir(parents=True)
        for number in range(IMAGES):
            write_png(Phantom(48), number, folder / f"{number:03d}.png")
        runs.append(on_files(nursery, tmp_path / name, folder))
    whole, run = runs
    break_file(whole.folder / "images" / f"{victim:03d}.png")
    left_alone(whole)
    run.start()
    run.wait_for(2)
    run.kill(signal.SIGTERM)
    assert run.end()[0] == 1
    assert run.saved() < 5, "too late to break the file"
    break_file(run.folder / "images" / f"{victim:03d}.png")
    text = left_alone(run).log.read_text()
    assert "1 of 30 images could not be read" in text
    assert run.equals(whole)


def on_files(nursery, folder, images):
    """Return a run on a folder of images without a split, in the order of their names."""
    run = Run(nursery, folder)
    path = folder / "config_False.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["data"] = {
        "class_path": "CXRDataModule",
        "init_args": {
            "root": str(images),
            "batch_size": BATCH,
            "num_workers": 0,
            "split": [1.0, 0.0, 0.0],
        },
    }
    path.write_text(yaml.safe_dump(settings))
    return run


def break_file(path):
    path.write_bytes(path.read_bytes()[:50])


@pytest.mark.slow
def test_a_run_killed_after_the_last_batch_of_an_epoch_and_again_in_the_next(nursery, tmp_path):
    flags = ["--trainer.max_steps=24"]  # of eight an epoch
    whole = left_alone(Run(nursery, tmp_path / "whole", flags=flags))
    run = Run(nursery, tmp_path / "run", flags=flags)
    for replaced, steps in ((17, 8), (12, 14)):  # two files a step, and the table now and then
        assert run.fit(("renamed", replaced))[0] == -signal.SIGKILL
        assert run.saved() == steps
    left_alone(run)
    assert run.equals(whole)


@pytest.mark.slow
def test_workers_end_soon_after_their_run_was_killed(nursery, tmp_path):
    run = Run(nursery, tmp_path / "run", workers=2)
    run.start()
    run.wait_for(2)
    assert len(members(run.pid, parent=run.pid)) >= 2
    run.kill(signal.SIGKILL)
    assert run.end()[0] == -signal.SIGKILL
    assert run.orphans() == []


@pytest.mark.slow
def test_the_number_of_checkpoints_does_not_grow_with_that_of_interruptions(nursery, tmp_path):
    run = Run(nursery, tmp_path / "run")
    for _ in range(4):
        run.start()
        run.wait_for(run.saved() + 1)
        run.kill(signal.SIGTERM)
        assert run.end()[0] == 1
    files = [path for path in run.folder.rglob("*") if path.suffix in (".ckpt", ".safetensors")]
    assert len({path.parent for path in files}) <= 2
    assert len(list(run.folder.glob("version_*/metrics.csv"))) == 4

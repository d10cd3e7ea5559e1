"""Runs on two nodes: one order of images, one run folder, and an end when a process is lost."""

import pytest

from tests.nodes import command, ended, notes, start, start_two

STEPS, LATER = 7, 12  # four steps an epoch, so that the first lies within one
BATCH = 8
SAVED = (
    "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint",
    f"--trainer.callbacks.every_n_train_steps={STEPS}",
    "--trainer.callbacks.save_last=true",
)

pytestmark = pytest.mark.slow


def until(steps, per_process, accumulated=1):
    return (
        f"--trainer.max_steps={steps}",
        f"--data.batch_size={per_process}",
        f"--trainer.accumulate_grad_batches={accumulated}",
    )


def finish(*processes):
    """Wait for processes that must do well; return what they said."""
    said = []
    for process in processes:
        code, text = ended(process)
        assert code == 0, text
        said.append(text)
    return said


def images_by_step(folder, n_processes):
    """Return the images of each optimiser step, of all processes, by the steps before it."""
    steps = {}
    for rank in range(n_processes):
        for row in notes(folder, rank):
            if "images" in row:
                steps.setdefault(row["begun"], []).extend(row["images"])
    assert all(len(set(images)) == len(images) == BATCH for images in steps.values())
    return {step: sorted(images) for step, images in steps.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An unbroken run of two nodes, and runs of one and two that go on from each other's."""
    two, one = tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    said = finish(*start_two(command(two, "whole", *until(LATER, 4), *SAVED)))
    (checkpoint,) = two.glob(f"version_0/checkpoints/*step={STEPS}.ckpt")
    alone = start(command(one, "before", *until(STEPS, 4, 2), *SAVED))
    continued = start(command(two, "continued", *until(LATER, 4, 2), f"--ckpt_path={checkpoint}"))
    finish(alone, continued)
    finish(*start_two(command(one, "after", *until(LATER, 4), "--ckpt_path=last")))
    return {"two": two, "one": one, "said": said}


def test_steps_show_the_same_images_however_they_are_shared(runs):
    whole = images_by_step(runs["two"] / "whole", 2)
    before = images_by_step(runs["one"] / "before", 1)
    assert list(whole) == list(range(LATER))
    assert before == {step: whole[step] for step in range(STEPS)}


@pytest.mark.parametrize(("run", "n_processes"), [("two/continued", 1), ("one/after", 2)])
def test_a_run_goes_on_with_another_number_of_processes(runs, run, n_processes):
    name, folder = run.split("/")
    whole = images_by_step(runs["two"] / "whole", 2)
    assert images_by_step(runs[name] / folder, n_processes) == {
        step: whole[step] for step in range(STEPS, LATER)
    }


def test_processes_draw_differently_and_the_same_after_a_resume(runs):
    first, second = (
        [row["drawn"] for row in notes(runs["two"] / "whole", rank)[:-1]] for rank in (0, 1)
    )
    assert all(a != b for a, b in zip(first, second, strict=True))
    for rank, drawn in enumerate((first, second)):
        rows = notes(runs["one"] / "after", rank)[:-1]
        assert [row["drawn"] for row in rows] == drawn[STEPS:]


def test_probes_are_fitted_and_results_written_once(runs):
    first, second = (notes(runs["two"] / "whole", rank)[-1] for rank in (0, 1))
    assert first["fits"] > 0
    assert second["fits"] == 0
    assert first["log_dir"] == second["log_dir"] == str(runs["two"] / "version_0")
    said = runs["said"]
    assert "Probe at step 0" in said[0]
    assert "Probe at step" not in said[1]
    written = sorted(path.name for path in (runs["two"] / "version_0").iterdir())
    assert sum(name.startswith("events") for name in written) == 1
    assert {"config.yaml", "metrics.csv", "checkpoints"} <= set(written)
    # One folder a run: the unbroken one, and the one that a single process has continued.
    assert sorted(path.name for path in runs["two"].glob("version_*")) == ["version_0", "version_1"]


@pytest.mark.parametrize("how", ["kill", "hang", "fail"])
def test_a_lost_process_ends_the_other_one(tmp_path, how):
    flags = ["--trainer.strategy=DDPStrategy", "--trainer.strategy.timeout=0:01:00"]
    processes = start_two(command(tmp_path, "notes", *until(LATER, 4), *flags, stop_at=2, how=how))
    try:
        code, text = ended(processes[0])
        assert code == 1
        lost = "does not answer any more" if how == "hang" else "has ended"
        assert f"cxrssl: error: another process of this run {lost}" in text
        if how == "fail":
            code, text = ended(processes[1])
            assert code == 1
            assert "the second process has failed" in text
    finally:
        for process in processes:
            process.kill()  # also one that is stopped
            process.communicate()
    rows = notes(tmp_path / "notes")
    assert rows[-1]["begun"] <= 2

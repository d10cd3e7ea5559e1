"""A run that is killed and resumed repeats the run that was left alone, bit for bit."""

import pytest

from tests.nursery import Nursery
from tests.runs import KILLED_AT, SAVED_EVERY, STEPS, config, losses


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as started:
        yield started


def fit(nursery, folder, path, *flags):
    """Run the command in a process of its own; return its exit code and what it said."""
    log = folder / "log"
    arguments = ["fit", "--config", str(path), *flags]
    nursery.start(arguments=arguments, fault=None, environment={}, log=str(log))
    return nursery.code(), log.read_text()


@pytest.mark.parametrize(
    ("objective", "workers", "accumulate"),
    [
        pytest.param("DINOv2", 0, 1, marks=pytest.mark.slow),
        ("DINOv2", 2, 2),
        ("WorldModel", 0, 2),
        pytest.param("IJEPA", 2, 1, marks=pytest.mark.slow),
        pytest.param("MLVICX", 2, 1, marks=pytest.mark.slow),
        ("MLVICX, ConvNet", 0, 2),
        pytest.param("VICReg", 0, 1, marks=pytest.mark.slow),
        ("LeJEPA", 2, 2),
        ("Joint", 2, 1),
        ("Classification, cached", 0, 2),
        pytest.param("Classification, fine-tuned", 2, 1, marks=pytest.mark.slow),
        pytest.param("Segmentation", 2, 1, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(
    nursery, tmp_path, objective, workers, accumulate
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    code, text = fit(nursery, tmp_path, config(whole, workers, accumulate, objective=objective))
    assert code == 0, text
    code, text = fit(
        nursery, tmp_path, config(broken, workers, accumulate, kill=True, objective=objective)
    )
    assert code == -9, text
    # Resumed with the other number of workers: that must not matter either.
    code, text = fit(
        nursery,
        tmp_path,
        config(broken, workers, accumulate, objective=objective),
        "--ckpt_path=last",
        f"--data.init_args.num_workers={2 - workers}",
    )
    assert code == 0, text

    expected, resumed = losses(whole / "version_0"), losses(broken / "version_1")
    assert set(expected) == set(range(STEPS))
    first = KILLED_AT // SAVED_EVERY * SAVED_EVERY
    assert set(resumed) == set(range(first, STEPS))
    for step, values in resumed.items():
        assert values == expected[step], step
    before = losses(broken / "version_0")
    assert {step: expected[step] for step in before} == before


@pytest.mark.slow
def test_a_sharded_run_has_all_its_files_and_goes_on_in_one_process(nursery, tmp_path):
    path = config(tmp_path, workers=0, checkpoints=False)
    code, text = fit(
        nursery,
        tmp_path,
        path,
        "--trainer.strategy=fully_sharded",
        "--trainer.devices=2",
        "--data.init_args.batch_size=2",
    )
    assert code == 0, text
    assert "could not be drawn" not in text
    run = tmp_path / "version_0"
    assert (run / "patches.png").exists()
    assert (run / "checkpoints" / "encoder.safetensors").exists()
    code, text = fit(
        nursery, tmp_path, path, "--ckpt_path=last", f"--trainer.max_steps={STEPS + 2}"
    )
    assert code == 0, text
    assert set(losses(tmp_path / "version_1")) == {STEPS, STEPS + 1}

import pytest

from cxrssl.schedules import Schedule
from tests.golden import load_golden

# Name in the golden file: the schedule and the steps of the run, after which its end is repeated.
GOLDEN = {
    "lr": (Schedule(0.004, final=1e-6, warmup=0.1), 200),
    "wd": (Schedule(0.04, final=0.4), 200),
    "mom": (Schedule(0.992, final=1.0), 200),
    "temp": (Schedule(0.07, start=0.04, warmup=1.0), 60),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    expected = load_golden("dinov2/schedules.npz")[name].tolist()
    schedule, steps = GOLDEN[name]
    values = [schedule(step / steps, steps=steps) for step in range(len(expected))]
    assert values == pytest.approx(expected, abs=1e-12)


def test_constant():
    schedule = Schedule(0.3)
    assert [schedule(p) for p in (0, 0.5, 1)] == [0.3, 0.3, 0.3]


def test_warmup_then_cosine_by_hand():
    schedule = Schedule(1.0, final=0.0, warmup=0.5)
    assert schedule(0.25) == pytest.approx(0.5)
    assert schedule(0.75) == pytest.approx(0.5)
    assert schedule(1.0) == 0.0
    assert schedule(2.0) == 0.0


def test_table_and_limit_agree_for_long_runs():
    schedule = Schedule(2.0, final=0.1, start=0.5, warmup=0.2, freeze=0.1)
    for step in range(0, 100_000, 997):
        assert schedule(step / 100_000, steps=100_000) == pytest.approx(
            schedule(step / 100_000), abs=2e-4
        )


def test_shares_must_fit_the_run():
    with pytest.raises(ValueError, match=r"at most 1, got warmup=0\.7 and freeze=0\.5"):
        Schedule(1.0, warmup=0.7, freeze=0.5)

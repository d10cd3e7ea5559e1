import pytest

from cxrssl.errors import InputError
from cxrssl.schedules import Schedule
from tests.golden import load_golden

# Name in the golden file: the schedule and the steps of the run, after which its end is repeated.
GOLDEN = {
    "lr": (Schedule(0.004, final=1e-6, warmup=0.1), 200),
    "wd": (Schedule(0.04, final=0.4), 200),
    "mom": (Schedule(0.992, final=1.0), 200),
    "temp": (Schedule(0.07, start=0.04, warmup=1.0), 60),
}

# CheXWorld and I-JEPA over 300 epochs of 8 steps, 40 of them (CheXWorld: 40 x 1.25) in warm-up.
IJEPA_RATE = {"final": 1e-6, "start": 2e-4, "warmup": 40 / 300, "from_one": True}
GOLDEN_JEPA = {
    "cw_lr": Schedule(2e-4, final=1e-6, warmup=50 / 300, stretch=1.25),
    "cw_wd": Schedule(0.05),
    "cw_mom": Schedule(0.996, final=1.0, stretch=1.25),
    "ijepa_lr": Schedule(1e-3, **IJEPA_RATE),
    "ijepa_lr_ipe125": Schedule(1e-3, stretch=1.25, **IJEPA_RATE),
    "ijepa_wd": Schedule(0.04, final=0.4, from_one=True),
    "ijepa_mom": Schedule(0.996, final=1.0, shape="linear"),
}

# VICReg over 100 epochs, 10 of them in warm-up, at a batch of 2048; MLVICX over 300 at one of 64.
END = {"final": 0.05e-3, "warmup_end": False}
GOLDEN_VICREG = {
    "vicreg/lr": Schedule(1.6, final=1.6e-3, warmup=10 / 100, warmup_end=False),
    "mlvicx/vicreg": Schedule(0.05, warmup=10 / 300, **END),
    "mlvicx/mlvicx": Schedule(0.05, warmup=2 / 300, stretch=1 + 2 / 300, **END),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name):
    expected = load_golden("dinov2/schedules.npz")[name].tolist()
    schedule, steps = GOLDEN[name]
    values = [schedule(step / steps, steps=steps) for step in range(len(expected))]
    assert values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", GOLDEN_JEPA)
def test_golden_jepa(name):
    expected = load_golden("chexworld/schedules.npz")[name].tolist()
    steps = len(expected)
    values = [GOLDEN_JEPA[name](step / steps, steps=steps) for step in range(steps)]
    assert values == pytest.approx(expected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", GOLDEN_VICREG)
def test_golden_vicreg(name):
    folder, key = name.split("/")
    expected = load_golden(f"{folder}/lr_schedule.npz")[key].tolist()
    steps = len(expected)
    values = [GOLDEN_VICREG[name](step / steps, steps=steps) for step in range(steps)]
    assert values == pytest.approx(expected, rel=1e-12, abs=0)


def test_constant():
    schedule = Schedule(0.3)
    assert [schedule(p) for p in (0, 0.5, 1)] == [0.3, 0.3, 0.3]


def test_warmup_then_cosine_by_hand():
    schedule = Schedule(1.0, final=0.0, warmup=0.5)
    assert schedule(0.25) == pytest.approx(0.5)
    assert schedule(0.75) == pytest.approx(0.5)
    assert schedule(1.0) == 0.0
    assert schedule(2.0) == 0.0


def test_table_of_the_warmup_with_and_without_its_end():
    options = {"final": 0.0, "start": 0.2, "warmup": 0.5, "shape": "linear"}
    both = Schedule(1.0, **options)
    once = Schedule(1.0, warmup_end=False, **options)
    assert [both(s / 8, 8) for s in range(6)] == pytest.approx([0.2, 7 / 15, 11 / 15, 1, 1, 0.75])
    assert [once(s / 8, 8) for s in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 0.75])
    assert both(1.0, 8) == once(1.0, 8) == 0.0
    assert [once(p) for p in (0.1, 0.6)] == [both(p) for p in (0.1, 0.6)]


def test_a_warmup_of_one_step_without_its_end_starts_at_the_start():
    once = Schedule(1.0, warmup=0.25, warmup_end=False)
    assert [once(step / 4, steps=4) for step in range(3)] == [0.0, 1.0, 1.0]


def test_stretched_curve_by_hand():
    # After the warm-up 0.5 runs are left of 1.5 - 0.5 = 1: the run ends half way down.
    for shape in ("cosine", "linear"):
        schedule = Schedule(1.0, final=0.0, warmup=0.5, stretch=1.5, shape=shape)
        assert schedule(0.25) == pytest.approx(0.5)  # the warm-up is not stretched
        for steps in (None, 8):
            assert schedule(1.0, steps) == schedule(7.0, steps) == pytest.approx(0.5)
    assert schedule(0.75) == pytest.approx(0.75)
    assert schedule(6 / 8, steps=8) == pytest.approx(0.75)
    # Nor is the freeze: 0.75 runs are left of 2 - 0.25 = 1.75.
    frozen = Schedule(1.0, final=0.0, freeze=0.25, stretch=2.0, shape="linear")
    for steps in (None, 8):
        assert frozen(1.0, steps) == pytest.approx(1 - 0.75 / 1.75)


def test_line_by_hand():
    schedule = Schedule(2.0, final=4.0, shape="linear")
    assert [schedule(p) for p in (0, 0.25, 0.5, 1)] == pytest.approx([2.0, 2.5, 3.0, 4.0])
    table = [schedule(step / 4, steps=4) for step in range(5)]
    assert table == pytest.approx([2.0, 2.5, 3.0, 3.5, 4.0])


def test_counting_from_one_reads_the_curve_at_the_end_of_each_step():
    options = {"final": 0.0, "start": 0.2, "warmup": 0.25, "freeze": 0.1}
    for stretch in (1.0, 1.25):
        ours = Schedule(1.0, stretch=stretch, from_one=True, **options)
        curve = Schedule(1.0, stretch=stretch, **options)
        for step in range(20):
            assert ours(step / 20, steps=20) == curve((step + 1) / 20)
        assert ours(1.0, steps=20) == curve(1.0)
        assert ours(0.3) == curve(0.3)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize("stretch", [1.0, 1.25, 3.0])
def test_stretch_shows_the_beginning_of_a_longer_run(shape, stretch):
    # The same number of warm-up steps in a run that is longer by the stretch.
    steps, longer = 1200, int(1200 * stretch)
    short = Schedule(1.0, final=0.1, warmup=0.25, stretch=stretch, shape=shape)
    long = Schedule(1.0, final=0.1, warmup=0.25 / stretch, shape=shape)
    for step in range(0, steps, 7):
        expected = long(step / longer, steps=longer)
        assert short(step / steps, steps=steps) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stretch": 1.25, "shape": "linear"},
        {"from_one": True},
        {"warmup_end": False},
    ],
)
def test_table_and_limit_agree_for_long_runs(options):
    schedule = Schedule(2.0, final=0.1, start=0.5, warmup=0.2, freeze=0.1, **options)
    for step in range(0, 100_000, 997):
        assert schedule(step / 100_000, steps=100_000) == pytest.approx(
            schedule(step / 100_000), abs=2e-4
        )


def test_shares_must_fit_the_run():
    with pytest.raises(ValueError, match=r"at most 1, got warmup=0\.7 and freeze=0\.5"):
        Schedule(1.0, warmup=0.7, freeze=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stretch": 0.8}, "stretch is the length of the curve in runs, at least 1, got 0.8"),
        ({"stretch": float("nan")}, "at least 1, got nan"),
        ({"shape": "step"}, "shape must be 'cosine' or 'linear', got 'step'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        Schedule(1.0, **options)

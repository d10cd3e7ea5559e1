import math

import pytest

from cxrssl.callbacks.alarms import Alarms

K = 1000


def first_alarm(read, limit=200):
    """Return after how many readings the first alarm came, and what it says."""
    for n in range(1, limit + 1):
        due = read()
        if due:
            return n, due[0]
    return None


@pytest.mark.parametrize(
    ("first", "later", "what"),
    [
        ((50.0, 0.5), (9.0, 0.5), "effective rank of the features is 9, it began at 50"),
        ((6.0, 0.5), (1.5, 0.5), "effective rank of the features is 1.5"),
        ((50.0, 0.5), (50.0, 0.009), "feature spread is 0.009, it began at 0.5"),
        ((50.0, 1e-3), (50.0, 5e-4), "feature spread is 0.0005"),
    ],
)
def test_collapsing_features(first, later, what):
    alarms = Alarms()
    assert alarms.features(*first) == []
    n, sentence = first_alarm(lambda: alarms.features(*later))
    assert n == 3
    assert what in sentence
    assert "Try" in sentence


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ((1.6, 0.004), (1.4, 0.003)),  # an untrained encoder that has hardly moved
        ((30.0, 0.1), (8.0, 0.05)),
        ((3.0, 0.02), (60.0, 0.9)),
    ],
)
def test_healthy_features(first, later):
    alarms = Alarms()
    alarms.features(*first)
    assert first_alarm(lambda: alarms.features(*later)) is None


@pytest.mark.parametrize(
    ("values", "readings", "what"),
    [
        ({"teacher_entropy": 0.01}, 10, "its targets are one prototype each"),
        ({"teacher_entropy": 0.995 * math.log(K)}, 40, "its targets are uniform"),
        ({"prototype_usage": 1 / K}, 10, "same prototype"),
        ({"student_teacher_agreement": 1 / K}, 40, "as by chance"),
    ],
)
def test_collapsing_prototypes(values, readings, what):
    alarms = Alarms()
    n, sentence = first_alarm(lambda: alarms.step(values, {"": K}))
    assert n == readings
    assert what in sentence


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"teacher_entropy": 0.9 * math.log(K), "prototype_usage": 4 / K},
        {"teacher_entropy": 0.05 * math.log(K), "student_teacher_agreement": 1.0},
        {"teacher_entropy": math.nan},
    ],
)
def test_healthy_prototypes(values):
    alarms = Alarms()
    assert first_alarm(lambda: alarms.step(values, {"": K})) is None


def test_methods_without_prototypes_raise_none():
    alarms = Alarms(step_patience=1)
    assert alarms.step({"prototype_usage": 0.0}, {}) == []


def test_speaks_once_and_again_after_recovery():
    alarms = Alarms(step_patience=2)
    usage = [1, 1, 1, 50, 1, 1, 1]
    heard = [bool(alarms.step({"prototype_usage": used / K}, {"": K})) for used in usage]
    assert heard == [False, True, False, False, False, True, False]


def test_state_goes_on_counting():
    alarms = Alarms()
    alarms.features(50, 0.5)
    alarms.features(1, 0.5)
    alarms.features(1, 0.5)
    other = Alarms()
    other.load_state_dict(alarms.state_dict())
    assert len(other.features(1, 0.5)) == 1


@pytest.mark.parametrize("settings", [{"patience": 0}, {"step_patience": 0}])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match="must be at least 1"):
        Alarms(**settings)


def test_targets_that_become_uniform_are_seen_early():
    alarms = Alarms()
    assert alarms.step({"teacher_entropy": 0.6 * math.log(K)}, {"": K}) == []
    uniform = {"teacher_entropy": 0.998 * math.log(K)}
    for _ in range(2):
        assert alarms.step(uniform, {"": K}) == []
    resumed = Alarms()
    resumed.load_state_dict(alarms.state_dict())
    n, sentence = first_alarm(lambda: resumed.step(uniform, {"": K}))
    assert n == 3
    assert "entropy rose from 60% to 99.8% of its maximum" in sentence


def test_objectives_that_train_together_are_judged_apart():
    alarms = Alarms(step_patience=2)
    values = {"first/prototype_usage": 1 / K, "second/prototype_usage": 0.5}
    prototypes = {"first/": K, "second/": K, "third/": K}
    assert alarms.step(values, prototypes) == []
    [sentence] = alarms.step(values, prototypes)
    assert sentence.startswith("first: ")


def test_a_state_of_one_objective_alone_is_taken_up():
    alarms = Alarms()
    alarms.load_state_dict({"first": {}, "bad": {}, "lowest_entropy": 0.6})
    assert alarms.state_dict()["lowest_entropy"] == {"": 0.6}

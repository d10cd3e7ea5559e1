from tests.distributed import run_two
from tests.objectives.jepa_training import ijepa_batches, small_ijepa, small_world, world_batches
from tests.objectives.two_processes import assert_equal_to_one, train_share

STEPS, LR = 3, 0.1
CASES = {
    "world": (small_world, world_batches, {"weights": {"variance": 0.1}}),
    "separate": (small_world, world_batches, {"domain": "separate", "elsewhere": "all"}),
    "local": (small_world, world_batches, {"domain": "off", "weights": {"global": 0.0}}),
    "ijepa": (small_ijepa, ijepa_batches, {}),
}


def train_cases(rank):
    return {
        name: train_share(rank, make(**options), batches(STEPS), LR)
        for name, (make, batches, options) in CASES.items()
    }


def test_two_processes_give_losses_gradients_and_weights_of_one(tmp_path):
    results = run_two(train_cases, tmp_path)
    for name, (make, batches, options) in CASES.items():
        shares = [result[name] for result in results]
        assert_equal_to_one(shares, make(**options), batches(STEPS), LR)

import pytest
import torch

from cxrssl.objectives import NonFiniteLossError
from cxrssl.objectives.nonfinite import NonFiniteSteps


def names(numbers):
    return [f"{number}.png" for number in numbers]


def test_counts_steps_and_not_micro_batches():
    steps = NonFiniteSteps(limit=1)
    for number in range(3):
        steps.see(torch.tensor([number]))
        steps.spoil("loss", [torch.tensor([number])])
    with pytest.warns(UserWarning, match=r"Step 7 was skipped.*Images: 0\.png, 1\.png, 2\.png"):
        steps.close(7, names)
    assert steps.total == 1
    assert steps.spoilt is None


def test_a_good_step_in_between_starts_the_count_anew():
    steps = NonFiniteSteps(limit=1)
    for _ in range(3):
        steps.spoil("gradient")
        with pytest.warns(UserWarning, match="Images: none of this process"):
            steps.close(0, names)
        steps.close(1, names)
    steps.spoil("gradient")
    with pytest.warns(UserWarning, match="its gradient is not finite"):
        steps.close(2, names)
    steps.see(torch.tensor([4]))
    steps.spoil("gradient")
    with pytest.raises(NonFiniteLossError, match=r"makes 2 in a row.*Images: 4\.png"):
        steps.close(3, names)

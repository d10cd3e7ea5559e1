import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from cxrssl.objectives import Teacher
from cxrssl.schedules import Schedule


def test_starts_equal_shares_nothing_and_follows_in_closed_form():
    torch.manual_seed(0)
    student = nn.Linear(3, 2)
    teacher = Teacher(student, momentum=0.9)
    storages = {p.data_ptr() for p in student.parameters()}
    assert not storages & {p.data_ptr() for p in teacher.parameters()}
    assert not any(p.requires_grad for p in teacher.parameters())
    start = student.weight.detach().clone()
    assert_close(teacher.module.weight, start)
    with torch.no_grad():
        student.weight += 1
    for _ in range(5):
        teacher.update(student, progress=0.0)
    assert_close(teacher.module.weight, start + 1 - 0.9**5)


def test_momentum_follows_its_schedule():
    student = nn.Linear(1, 1)
    teacher = Teacher(student, Schedule(0.5, final=1.0))
    assert teacher.update(student, progress=0.0) == 0.5
    assert teacher.update(student, progress=0.5) == 0.75
    assert teacher.update(student, progress=1.0) == 1.0


def test_stays_in_evaluation_mode_and_copies_buffers():
    student = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
    teacher = Teacher(student, 0.9)
    nn.Sequential(teacher).train()
    assert not any(module.training for module in teacher.modules())
    student(torch.randn(8, 2))
    teacher.update(student, 0.0)
    assert_close(teacher.module[0].running_mean, student[0].running_mean)


def networks(dtype=torch.bfloat16, momentum=0.9999):
    """Return a student of ones plus one, and the teacher of ones."""
    student = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    for parameter in student.parameters():
        nn.init.ones_(parameter)
    teacher = Teacher(student, momentum)
    student.to(dtype)
    teacher.to(dtype)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 1
    return student, teacher


def moved(student, teacher, n):
    for _ in range(n):
        teacher.update(student, 0.0)
    return teacher


def test_bfloat16_alone_cannot_hold_a_step_of_the_average():
    teacher = torch.ones(3, dtype=torch.bfloat16)
    for _ in range(1000):
        teacher.lerp_(torch.full_like(teacher, 2), 1e-4)
    assert torch.equal(teacher, torch.ones_like(teacher))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_average_near_momentum_1_moves_in_half_precision(dtype):
    teacher = moved(*networks(dtype), 1000)
    expected = torch.tensor(2 - 0.9999**1000)
    for name, parameter in teacher.module.named_parameters():
        assert parameter.dtype == dtype
        assert torch.equal(parameter, expected.to(dtype).expand_as(parameter)), name
    for value in teacher.state_dict().values():
        assert value.dtype == torch.float32
        assert_close(value, expected.expand_as(value), atol=1e-5, rtol=0)


def test_half_precision_averages_as_float32_does():
    rounded = moved(*networks(), 100).state_dict()
    exact = moved(*networks(torch.float32), 100).state_dict()
    assert list(rounded) == list(exact)
    for name, value in exact.items():
        assert_close(rounded[name], value, atol=1e-6, rtol=0)


def test_averages_resume_exactly():
    student, teacher = networks()
    state = copy.deepcopy(moved(student, teacher, 10).state_dict())
    _, other = networks()
    other.load_state_dict(state)
    _, outer = networks()
    nn.ModuleDict({"teacher": outer}).load_state_dict({f"teacher.{k}": v for k, v in state.items()})
    expected = moved(student, teacher, 10).state_dict()
    for resumed in (other, outer, copy.deepcopy(other)):
        found = resumed if resumed is outer else moved(student, resumed, 0)
        found.load_state_dict(state)
        for name, value in moved(student, found, 10).state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_averages_and_float32_teachers_take_each_other_over():
    student, teacher = networks()
    state = moved(student, teacher, 10).state_dict()
    _, exact = networks(torch.float32)
    exact.load_state_dict(state)
    _, back = networks()
    back.load_state_dict(exact.state_dict())
    for name, value in back.state_dict().items():
        assert torch.equal(value, state[name]), name
        assert torch.equal(exact.state_dict()[name], state[name]), name


def test_an_average_survives_being_loaded_before_the_model_is_converted():
    student, teacher = networks()
    state = moved(student, teacher, 10).state_dict()
    _, late = networks(torch.float32)
    late.load_state_dict(state)
    late.bfloat16()
    for name, value in late.state_dict().items():
        assert torch.equal(value, state[name]), name
    for name, value in late.bfloat16().module.state_dict().items():
        assert torch.equal(value, state[f"module.{name}"].bfloat16()), name


def test_weights_written_into_a_rounded_teacher_count():
    student, teacher = networks()
    moved(student, teacher, 10)
    with torch.no_grad():
        teacher.module[0].weight.fill_(0.5)
    moved(student, teacher, 10)
    weight, bias = teacher.state_dict()["module.0.weight"], teacher.state_dict()["module.0.bias"]
    assert_close(weight, torch.full_like(weight, 2 - 1.5 * 0.9999**10), atol=1e-6, rtol=0)
    assert_close(bias, torch.full_like(bias, 2 - 0.9999**20), atol=1e-6, rtol=0)
    teacher.restart(student)
    for name, value in teacher.module.state_dict().items():
        assert torch.equal(value, student.state_dict()[name])
        assert torch.equal(teacher.state_dict()[f"module.{name}"], value)

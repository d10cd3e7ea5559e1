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

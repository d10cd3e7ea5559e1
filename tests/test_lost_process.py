import re

import pytest
from torch import distributed as dist

from cxrssl.exit_codes import exit_code
from cxrssl.lost_process import lost_process

RESET = "[/gloo/transport/tcp/pair.cc:545] Read error [10.0.0.2]:13703: Connection reset by peer."
LATE = "[/gloo/transport/tcp/unbound_buffer.cc:129] Timed out waiting 60000ms for send operation"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError(RESET), "another process of this run has ended: .*Connection reset by peer"),
        (RuntimeError(LATE), "does not answer any more: .*Timed out waiting 60000ms"),
        (dist.DistBackendError("NCCL error in: x.cpp\nmore"), r"has ended: .*in: x.cpp\)$"),
        (dist.DistNetworkError(""), r"has ended: .*\(DistNetworkError\)$"),
    ],
)
def test_an_error_between_processes_is_one_sentence(error, sentence, capsys):
    def fail():
        raise error

    assert exit_code(fail) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert said.startswith("cxrssl: error: another process of this run")
    assert re.search(sentence, said)


def test_other_errors_are_not_of_that_kind():
    assert lost_process(RuntimeError("shape mismatch")) is None
    assert lost_process(ValueError("Connection reset by peer")) is None

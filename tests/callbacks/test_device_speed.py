import pytest
import torch

from cxrssl.callbacks.device_speed import peak_flops


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312),
        ("NVIDIA A100 80GB PCIe", "bf16-mixed", 312),
        ("NVIDIA H100 80GB HBM3", "16-mixed", 989),
        ("NVIDIA H100 PCIe", "bf16-mixed", 756),
        ("NVIDIA H200", "bf16-mixed", 989),
        ("Tesla V100-SXM2-32GB", "16-mixed", 125),
        ("Tesla V100-SXM2-32GB", "bf16-mixed", None),
        ("NVIDIA L40S", "bf16-mixed", 362),
        ("NVIDIA A10", "bf16-mixed", 125),
        ("NVIDIA A10G", "bf16-mixed", None),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", 165),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16-mixed", None),
        ("NVIDIA GeForce RTX 3090", "16-mixed", 71),
        ("NVIDIA GeForce RTX 3090 Ti", "16-mixed", None),
        ("NVIDIA H100 80GB HBM3", "32-true", None),
        ("NVIDIA H100 80GB HBM3", "64-true", None),
    ],
)
def test_peak_of_a_device(device, precision, expected):
    found = peak_flops(device, precision)
    assert found == (None if expected is None else expected * 1e12)


def test_float32_is_measured_against_tf32_where_it_is_allowed():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert peak_flops("NVIDIA A100-SXM4-40GB", "32-true") == 156e12
        assert peak_flops("Tesla V100-SXM2-32GB", "32-true") is None
    finally:
        torch.set_float32_matmul_precision(before)

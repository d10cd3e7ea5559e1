"""The fastest that GPUs multiply matrices, to tell how well a run uses them."""

import re

import torch

__all__ = ["peak_flops"]

_PEAKS: tuple[tuple[str, float | None, float | None, float | None], ...] = (
    # Name, then 10^12 operations a second in bfloat16, float16 and TF32; None where it has none.
    (r"A100( 80GB PCIe)?", 312, 312, 156),
    (r"A10", 125, 125, 62.5),
    (r"H100 PCIe", 756, 756, 378),
    (r"H100 NVL", 835, 835, 417),
    (r"H100 80GB HBM3", 989, 989, 494.5),
    (r"H200", 989, 989, 494.5),
    (r"L40S", 362, 362, 183),
    (r"GeForce RTX 4090", 165, 165, 82.6),
    (r"GeForce RTX 3090", 71, 71, 35.6),
    (r"V100-SXM[23]", None, 125, None),
)
"""Dense peaks with float32 sums, from NVIDIA's data sheets."""


def peak_flops(device: str, precision: str) -> float | None:
    """Return the peak of a GPU in operations a second; None where it is not known.

    Args:
        device: As ``torch.cuda.get_device_name`` calls it.
        precision: As Lightning calls it. ``32-true`` has the peak of TF32 where
            ``torch.set_float32_matmul_precision`` allows it, and none otherwise.
    """
    column = _column(precision)
    if column is None:
        return None
    for name, *peaks in _PEAKS:
        # A suffix of the size is the same chip; `Ti`, `Laptop GPU` and the like are another.
        if re.fullmatch(rf"(NVIDIA |Tesla )?{name}(-.*)?", device):
            peak = peaks[column]
            return None if peak is None else peak * 1e12
    return None


def _column(precision: str) -> int | None:
    if precision == "32-true":
        return None if torch.get_float32_matmul_precision() == "highest" else 2
    return {"bf16-mixed": 0, "16-mixed": 1}.get(precision)

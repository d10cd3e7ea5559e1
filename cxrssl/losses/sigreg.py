"""SIGReg: how far a batch of embeddings is from an isotropic Gaussian."""

import torch
from torch import Tensor

from cxrssl.losses.distributed import sum_with_gradient, world_size

__all__ = ["draw_directions", "sigreg"]


def draw_directions(
    dim: int, n: int, generator: torch.Generator, device: torch.device | None = None
) -> Tensor:
    """Return unit vectors (D, K), drawn on the CPU so that every process can draw the same.

    Args:
        dim: Dimensions D.
        n: Number K of directions.
        generator: A generator of the CPU, in the same state on every process.
        device: Where the result goes.
    """
    directions = torch.randn(dim, n, generator=generator)
    unit: Tensor = directions / directions.norm(dim=0)
    return unit.to(device)


def sigreg(z: Tensor, directions: Tensor, points: int = 17, limit: float = 5.0) -> Tensor:
    """Return the sketched isotropic Gaussian regulariser (LeJEPA, arXiv 2511.08544, section 4).

    Along each direction the Epps-Pulley statistic compares the empirical characteristic function of
    the projected batch with that of a standard normal distribution,

        N * integral over [-limit, limit] of |ecf(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,

    by the trapezoidal rule; the result is the mean over directions. N counts the rows of all
    processes, and so does the characteristic function.

    Args:
        z: Embeddings (B, D). Every process has the same number of rows.
        directions: Unit vectors (D, K), the same on every process.
        points: Points of the rule, odd: 0 is one of them.
        limit: Where the integral ends.

    Returns:
        A scalar in single precision; in double for embeddings in double.

    Raises:
        ValueError: If ``points`` is even or less than 3, or ``limit`` is not positive.
    """
    if points < 3 or points % 2 == 0:
        raise ValueError(f"points must be odd and at least 3, got {points}")
    if limit <= 0:
        raise ValueError(f"limit must be positive, got {limit}")
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        # The integrand is even: its left half would repeat the right one.
        t = torch.linspace(0, limit, points // 2 + 1, device=z.device, dtype=z.dtype)
        weights = torch.full_like(t, 2 * float(t[1]))
        weights[[0, -1]] /= 2
        normal = torch.exp(-t.square() / 2)
        projected = z @ directions.to(z)  # (B, K)
        angles = projected * t[:, None, None]  # (T, B, K)
        n = len(z) * world_size()
        real, imaginary = (
            sum_with_gradient(torch.stack([angles.cos().sum(1), angles.sin().sum(1)])) / n
        )
        distance = (real - normal[:, None]).square() + imaginary.square()  # (T, K)
        statistic: Tensor = n * ((weights * normal) @ distance)
        return statistic.mean()

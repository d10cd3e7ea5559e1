"""SIGReg: embeddings are to be an isotropic Gaussian, along random directions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.losses.distributed import sum_with_gradient, world_size

__all__ = ["draw_directions", "sigreg"]


def draw_directions(
    dim: int, n: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Return directions (D, K) of length 1, uniform on the sphere, in float32.

    Args:
        dim: D.
        n: Number K of directions.
        generator: A generator of the CPU; processes that seed it alike share the directions,
            whatever their device.
        device: Where the directions go.
    """
    # Lightning makes bfloat16 the default dtype while it trains with weights in bf16-true.
    normal = torch.randn(dim, n, generator=generator, dtype=torch.float32)
    return F.normalize(normal, dim=0).to(device)


def sigreg(z: Tensor, directions: Tensor, *, points: int = 17, limit: float = 5.0) -> Tensor:
    """Return the mean over directions of the Epps-Pulley statistic of normality (LeJEPA).

    Balestriero and LeCun, 2025 (arXiv 2511.08544). With the N projections x_n of the embeddings
    onto one direction, and their empirical characteristic function f(t) = mean_n exp(i t x_n),
    the statistic is

        N * integral from -limit to limit of |f(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt,

    by the trapezoidal rule. Its expectation is about 1.06 for a standard normal sample of any size,
    and 0.41 N for embeddings that are all 0. N counts the rows of all processes, each of which must
    hold equally many, and the same directions. Computed in float32 or better, whatever the
    precision of the run.

    The default rule, of step 0.625, cannot tell projections 2 pi / 0.625 = 10.05 apart, so that a
    cloud that reaches far beyond 5 need not contract. With more points it does, but slowly, for far
    outliers have next to no gradient: embeddings should begin with a spread of about 1.

    Args:
        z: (B, D) embeddings.
        directions: (D, K) of length 1, see :func:`draw_directions`.
        points: Number of points of the rule.
        limit: Where the integral is cut off.

    Raises:
        ValueError: If there are fewer than 2 points, or the limit is not positive.
    """
    if points < 2 or limit <= 0:
        raise ValueError(
            f"sigreg needs at least 2 points and a positive limit, got {points} and {limit}"
        )
    with torch.autocast(z.device.type, enabled=False):
        z = z if z.dtype == torch.float64 else z.float()
        n = len(z) * world_size()
        # The integrand is even, and 0 at t = 0: the points t > 0 count twice and say it all.
        t = torch.linspace(-limit, limit, points, dtype=z.dtype, device=z.device)[-(points // 2) :]
        weights = torch.full_like(t, 4 * limit / (points - 1))
        weights[-1] /= 2
        normal = torch.exp(-t.square() / 2)
        angles = t[:, None, None] * (z @ directions.to(z.dtype))  # (T, B, K)
        sums = torch.stack([angles.cos().sum(1), angles.sin().sum(1)])
        real, imaginary = sum_with_gradient(sums) / n  # (T, K) each
        distance = (real - normal[:, None]).square() + imaginary.square()
        statistics: Tensor = n * (weights * normal) @ distance  # (K,)
        return statistics.mean()

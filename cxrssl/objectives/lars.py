"""LARS with the decay inside the gradient whose norm it divides by."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.optim import Lars

__all__ = ["LARS"]


class LARS(Lars):  # type: ignore[misc]
    """Layer-wise adaptive rates (You, Gitman, Ginsburg, 2017, arXiv 1708.03888) as VICReg has them.

    With gradient g, weight decay w and trust coefficient t, a parameter p moves by::

        g = g + w * p
        g = g * t * |p| / |g|   # unless a norm is 0, or the group is not adapted
        m = momentum * m + g    # 0 at first
        p = p - lr * m

    timm's optimiser, like the paper, divides by |g| + w |p| instead, the norms taken apart.

    Args:
        groups: Groups of parameters. ``always_adapt`` of a group, timm's name, says whether its
            parameters are adapted (true if left out); vectors usually are not, and not decayed.
        lr: Learning rate where a group has none.
        momentum: Share of the last step kept in the next one.
        weight_decay: Weight decay where a group has none.
        trust: The trust coefficient.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        super().__init__(
            groups,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            trust_coeff=trust,
            eps=0.0,
            always_adapt=True,
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters that have a gradient; neither gradients nor groups are changed.

        Args:
            closure: Computes the loss and the gradients.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        kept = [
            (group, group["weight_decay"], [(p, p.grad) for p in group["params"]])
            for group in self.param_groups
        ]
        for group, decay, gradients in kept:
            group["weight_decay"] = 0.0
            for p, gradient in gradients:
                if gradient is not None and decay != 0:
                    p.grad = gradient.add(p, alpha=decay)
        super().step()
        for group, decay, gradients in kept:
            group["weight_decay"] = decay
            for p, gradient in gradients:
                p.grad = gradient
        return loss

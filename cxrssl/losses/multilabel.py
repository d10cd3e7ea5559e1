"""Losses on several findings an image, of which some may be unknown."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from cxrssl.losses.distributed import all_sum, world_size

__all__ = [
    "Reduction",
    "UncertainPolicy",
    "asymmetric_loss",
    "labels_as_published",
    "multilabel_bce",
    "resolve_labels",
]

Reduction = Literal["mean", "sum"]
UncertainPolicy = Literal["ignore", "zeros", "ones", "smoothing"]

_TARGETS: dict[UncertainPolicy, float] = {
    "ignore": torch.nan,
    "zeros": 0.0,
    "ones": 1.0,
    "smoothing": 0.7,
}
_EPS = 1e-8


def multilabel_bce(
    logits: Tensor,
    labels: Tensor,
    *,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Return the binary cross-entropy over the known labels, in float32 or better.

    Args:
        logits: (B, F).
        labels: (B, F) in [0, 1], soft ones included; NaN where not known, which is left out.
        reduction: ``mean`` divides by the number of known labels of all processes, and multiplies
            by the number of processes, so that the mean that distributed training takes of their
            gradients is the gradient of the mean over the global batch, wherever the known labels
            are; without any known label it is 0. ``sum`` adds up the labels of this process, as
            CheXFound does; the mean of gradients is then that of the sum over the global batch
            divided by the number of processes.
        weight: Factors of the labels' losses, (F,) or (B, F); the mean still divides by the number
            of known labels.

    Raises:
        ValueError: If the shapes differ, or the reduction is unknown.
    """
    with torch.autocast(logits.device.type, enabled=False):
        x, targets, known = _prepare(logits, labels)
        losses = F.binary_cross_entropy_with_logits(x, targets, weight, reduction="none")
        return _reduce(losses, known, reduction)


def asymmetric_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 1.0,
    clip: float = 0.05,
    detach_focus: bool = True,
    reduction: Reduction = "sum",
) -> Tensor:
    """Return the asymmetric loss over the known labels (Ridnik et al., 2021, arXiv 2009.14119).

    With p = sigmoid(logit) and p_m = max(p - clip, 0), in float32 or better:

        y = 1: -(1 - p)^gamma_positive log p;   y = 0: -p_m^gamma_negative log(1 - p_m).

    A soft label mixes the logarithms, the powers' bases and their exponents, as the released code
    does. Unlike there, log p is not cut off at log 1e-8, so that a positive the model is sure to be
    none keeps its gradient.

    Args:
        logits: (B, F).
        labels: (B, F) in [0, 1]; NaN where not known, which is left out.
        gamma_negative: Focusing exponent of absent findings.
        gamma_positive: Focusing exponent of present findings.
        clip: Probability below which an absent finding costs nothing.
        detach_focus: Whether the powers are constants to the gradient.
        reduction: See :func:`multilabel_bce`.

    Raises:
        ValueError: If the shapes differ, or the reduction is unknown.
    """
    with torch.autocast(logits.device.type, enabled=False):
        x, y, known = _prepare(logits, labels)
        # With a clip, 1 - p_m has no logit; without one, the logarithm must not come to log 0.
        absent = (x.neg().sigmoid() + clip).clamp(max=1)
        log_absent = absent.log() if clip > 0 else F.logsigmoid(-x)
        log_likelihood = y * F.logsigmoid(x) + (1 - y) * log_absent
        with torch.set_grad_enabled(torch.is_grad_enabled() and not detach_focus):
            miss = 1 - (y * x.sigmoid() + (1 - y) * absent)
            # Exactly 0 has an infinite slope under exponents below 1.
            focus = miss.clamp(min=_EPS) ** (gamma_positive * y + gamma_negative * (1 - y))
        return _reduce(-focus * log_likelihood, known, reduction)


def resolve_labels(
    labels: Tensor,
    policy: UncertainPolicy | Sequence[UncertainPolicy] | Mapping[str, UncertainPolicy],
    *,
    findings: Sequence[str] | None = None,
) -> Tensor:
    """Return targets (B, F) of labels whose -1 means uncertain, as CheXpert has them.

    ``ignore`` makes an uncertain label unknown (NaN), ``zeros`` absent, ``ones`` present (Irvin et
    al., 2019, arXiv 1901.07031). ``smoothing`` sets it to 0.7, the mean of the U(0.55, 0.85) that
    Pham et al. (2021, arXiv 1911.06475) draw from: the cross-entropy is linear in its target, so
    that the constant has the same expected loss and gradient, without their noise. All other labels
    stay, NaN included.

    Args:
        labels: (B, F) of 1, 0, -1 and NaN.
        policy: One for all findings, one for each in order, or by name; findings that are not named
            are ignored where uncertain.
        findings: Names of the F findings, where the policy is by name.

    Raises:
        ValueError: If a policy is unknown, there are not F of them, or a name is not among the
            findings.
    """
    policies = _policies(policy, labels.shape[1], findings)
    if wrong := sorted(set(policies) - set(get_args(UncertainPolicy))):
        raise ValueError(
            f"the policy must be 'ignore', 'zeros', 'ones' or 'smoothing', got {wrong[0]!r}"
        )
    labels = labels if labels.dtype == torch.float64 else labels.float()
    return torch.where(labels == -1, labels.new_tensor([_TARGETS[p] for p in policies]), labels)


def labels_as_published(labels: Tensor, head: int) -> Tensor:
    """Return labels (B, F) as CheXFound's code gives them to one of the heads it trains together.

    There, only the first head leaves unknown labels out: they are overwritten by 0 in the loop over
    heads, so that all later ones, with other learning rates, take them for absent findings. This
    is a mistake, and here only to reproduce published numbers.

    Args:
        labels: (B, F), NaN where not known.
        head: Number of the head, from 0.
    """
    return labels if head == 0 else labels.nan_to_num(nan=0.0)


def _prepare(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, targets with 0 for unknown labels, and which are known."""
    if logits.shape != labels.shape:
        raise ValueError(
            f"logits and labels must have one shape, got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}"
        )
    x = logits if logits.dtype == torch.float64 else logits.float()
    known = ~labels.isnan()
    return x, labels.to(x.dtype).where(known, 0), known


def _reduce(losses: Tensor, known: Tensor, reduction: Reduction) -> Tensor:
    """Return the sum or mean of the known losses, see :func:`multilabel_bce`."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    total = losses.where(known, 0).sum()
    if reduction == "sum":
        return total
    return total * world_size() / all_sum(known.sum()).clamp(min=1)


def _policies(
    policy: UncertainPolicy | Sequence[UncertainPolicy] | Mapping[str, UncertainPolicy],
    n_findings: int,
    findings: Sequence[str] | None,
) -> list[UncertainPolicy]:
    """Return one policy for each finding."""
    if isinstance(policy, str):
        return [policy] * n_findings
    if isinstance(policy, Mapping):
        if findings is None or set(policy) - set(findings):
            raise ValueError(
                f"a policy by name needs findings that have all of {sorted(policy)}, got {findings}"
            )
        policy = [policy.get(name, "ignore") for name in findings]
    if len(policy) != n_findings:
        raise ValueError(f"there are {n_findings} findings, got policies for {len(policy)}")
    return list(policy)

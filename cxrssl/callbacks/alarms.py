"""When measures of a run's health stand for a collapse, and what to say then."""

import math
from collections.abc import Mapping
from typing import Any

from cxrssl.errors import InputError

__all__ = ["Alarms"]

_CALMER = "Try a lower learning rate, a longer warm-up, or"
_LONG = 4


class Alarms:
    """Counts bad readings in a row and speaks once a measure has been bad for long enough.

    | measure | bad where | readings |
    |---|---|---|
    | effective rank | below 20 % of its first value, or below 2 and half of it | ``patience`` |
    | feature spread | below 0.001, or below 0.01 and half of its first value | ``patience`` |
    | teacher entropy | below 1 % of log K | ``step_patience`` |
    | prototypes in use | only one | ``step_patience`` |
    | teacher entropy | above 99 % of log K, having been below 95 % | half of ``step_patience`` |
    | teacher entropy | above 99 % of log K from the start | 4 ``step_patience`` |
    | student-teacher agreement | at most 2 / K, where chance is 1 / K | 4 ``step_patience`` |

    Thresholds of the features are relative to the first reading, since an untrained ViT gives
    all radiographs nearly the same features. The last two rows are normal while prototypes are
    still forming, hence their longer patience. A measure that recovers can speak again.

    Args:
        patience: Bad readings of the features in a row before an alarm.
        step_patience: The same for scalars of training steps, which are read more often.

    Raises:
        InputError: If a patience is not positive.
    """

    def __init__(self, *, patience: int = 3, step_patience: int = 10) -> None:
        if patience < 1 or step_patience < 1:
            raise InputError(
                f"patience and step_patience must be at least 1, got {patience} and {step_patience}"
            )
        self.patience = patience
        self.step_patience = step_patience
        self._first: dict[str, float] = {}
        self._bad: dict[str, int] = {}
        self._lowest_entropy: dict[str, float] = {}  # share of log K

    def features(self, effective_rank: float, feature_spread: float) -> list[str]:
        """Take a reading of the features, the first one as reference; return due alarms."""
        if not self._first:
            self._first = {"rank": effective_rank, "spread": feature_spread}
            return []
        rank, spread = self._first["rank"], self._first["spread"]
        lowest_rank = max(0.2 * rank, min(2.0, rank / 2))
        lowest_spread = max(1e-3, min(1e-2, spread / 2))
        return [
            *self._count(
                "rank",
                effective_rank < lowest_rank,
                self.patience,
                f"The effective rank of the features is {effective_rank:.2g}, it began at "
                f"{rank:.2g}: the features are collapsing onto a few directions. {_CALMER} more "
                "weight on the term that spreads features (KoLeo, variance).",
            ),
            *self._count(
                "spread",
                feature_spread < lowest_spread,
                self.patience,
                f"The feature spread is {feature_spread:.2g}, it began at {spread:.2g}: all "
                f"images are getting the same feature. {_CALMER} a higher teacher momentum.",
            ),
        ]

    def step(self, values: Mapping[str, float], prototypes: Mapping[str, int]) -> list[str]:
        """Take a reading of a training step's scalars; return due alarms.

        Args:
            values: ``teacher_entropy`` in nats, ``prototype_usage`` and
                ``student_teacher_agreement`` in [0, 1]; each may be absent. Where several
                objectives train together, each name has the objective's prefix.
            prototypes: K, the number of prototypes, by that prefix; none for methods without any.
        """
        due: list[str] = []
        for prefix, n_prototypes in prototypes.items():
            for name, judge in (
                ("teacher_entropy", self._entropy),
                ("prototype_usage", self._usage),
                ("student_teacher_agreement", self._agreement),
            ):
                value = values.get(prefix + name)
                if n_prototypes > 1 and value is not None and math.isfinite(value):
                    speaker = f"{prefix.rstrip('/')}: " if prefix else ""
                    due += [speaker + sentence for sentence in judge(value, n_prototypes, prefix)]
        return due

    def state_dict(self) -> dict[str, Any]:
        """Return first values and counts as plain data."""
        return {
            "first": dict(self._first),
            "bad": dict(self._bad),
            "lowest_entropy": dict(self._lowest_entropy),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting."""
        self._first = dict(state_dict["first"])
        self._bad = dict(state_dict["bad"])
        lowest = state_dict["lowest_entropy"]
        # One number in checkpoints of before objectives could train together.
        self._lowest_entropy = {"": lowest} if isinstance(lowest, float) else dict(lowest)

    def _entropy(self, entropy: float, n_prototypes: int, prefix: str) -> list[str]:
        share = entropy / math.log(n_prototypes)
        lowest = min(self._lowest_entropy.get(prefix, 1.0), share)
        self._lowest_entropy[prefix] = lowest
        lost = share > 0.99 and lowest < 0.95
        return [
            *self._count(
                prefix + "lost",
                lost,
                max(self.step_patience // 2, 1),
                f"The teacher's entropy rose from {lowest:.0%} to {share:.1%} of its "
                "maximum: its targets have become uniform and teach nothing. "
                f"{_CALMER} a lower teacher temperature, a higher teacher momentum, weaker crops.",
            ),
            *self._count(
                prefix + "sharp",
                share < 0.01,
                self.step_patience,
                f"The teacher's entropy is {share:.1%} of its maximum: its targets are one "
                f"prototype each. {_CALMER} a higher teacher temperature, or stronger centring.",
            ),
            *self._count(
                prefix + "uniform",
                share > 0.99 and not lost,
                _LONG * self.step_patience,
                f"The teacher's entropy is {share:.1%} of its maximum: its targets are uniform and "
                f"teach nothing. {_CALMER} a lower teacher temperature.",
            ),
        ]

    def _usage(self, usage: float, n_prototypes: int, prefix: str) -> list[str]:
        return self._count(
            prefix + "usage",
            usage * n_prototypes < 1.5,
            self.step_patience,
            "Every image of the batch has the same prototype: the teacher does not tell images "
            f"apart. {_CALMER} stronger centring (Sinkhorn).",
        )

    def _agreement(self, agreement: float, n_prototypes: int, prefix: str) -> list[str]:
        return self._count(
            prefix + "agreement",
            agreement <= 2 / n_prototypes,
            _LONG * self.step_patience,
            f"Student and teacher choose the same prototype in {agreement:.2%} of the cases, as "
            f"by chance: the student does not learn. {_CALMER} weaker crops, and check that "
            "images reach the model as they should.",
        )

    def _count(self, name: str, bad: bool, patience: int, sentence: str) -> list[str]:
        self._bad[name] = self._bad.get(name, 0) + 1 if bad else 0
        return [sentence] if self._bad[name] == patience else []

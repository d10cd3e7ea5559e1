"""What is to be measured, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cxrssl.backbones.tokens import Pooling
from cxrssl.data.features import FeatureDtype
from cxrssl.errors import InputError

__all__ = ["EvaluationOptions", "Group", "Method"]

Method = Literal["knn", "linear", "logistic"]
Group = Literal["sex", "age", "view", "dataset"]


@dataclass(frozen=True)
class EvaluationOptions:
    """What is measured of frozen encoders, and how.

    Args:
        findings: Label columns to score; all of them if None.
        methods: What learns the findings from features: ``knn``, nearest neighbours; ``linear``,
            the ridge regression in closed form that watches runs; ``logistic``, logistic
            regression.
        pooling: Features of an image: its ``class`` token, its ``mean`` patch token, or ``both``
            side by side.
        k: Neighbours of ``knn``.
        shares: Shares of the training images for the few-label curve; none leaves it out.
        shots: Positive and negative images a finding for the few-label curve; none leaves it out.
        seeds: Seeds of the few-label subsets, which are nested within a seed.
        metadata: Whether sex, age, weight and body mass index are told from the features.
        views: Evaluate ``frontal`` or ``lateral`` images alone; all if None.
        balance: Whether each finding has as many negatives as positives in each split, drawn from
            the others at random, as RAD-DINO's lateral tasks have.
        sizes: Sides in pixels of the square images shown; each encoder's own if None.
        groups: Subgroups of test images that are scored on their own.
        replicates: Bootstrap resamples of patients.
        specificity: At which sensitivity is measured.
        seed: Of resamples, folds, balancing and a validation split out of the training images.
        validation: Share of the training images, whole patients, that serves as validation split
            where the index has none.
        cache: Folder for features, so that images are encoded once for all evaluations; see
            :class:`cxrssl.data.features.FeatureStore`.
        cache_dtype: How cached numbers are kept.
        pretrained_on: Indices that the encoders were pretrained on, ``INDEX[=ROOT]`` each; the
            results state what they expose of the test images.
        fingerprints: File that ``cxrssl check INDEX --against INDEX`` wrote, to compare images and
            not names alone.

    Raises:
        InputError: If an option is out of range.
    """

    findings: list[str] | None = None
    methods: list[Method] = field(default_factory=lambda: ["knn", "linear", "logistic"])
    pooling: Pooling = "both"
    k: int = 20
    shares: list[float] = field(default_factory=lambda: [0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0])
    shots: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 32])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    metadata: bool = True
    views: Literal["frontal", "lateral"] | None = None
    balance: bool = False
    sizes: list[int] | None = None
    groups: list[Group] = field(default_factory=lambda: ["sex", "age", "view", "dataset"])
    replicates: int = 1000
    specificity: float = 0.9
    seed: int = 0
    validation: float = 0.1
    cache: str | None = None
    cache_dtype: FeatureDtype = "float16"
    pretrained_on: list[str] = field(default_factory=list)
    fingerprints: str | None = None

    def __post_init__(self) -> None:
        _once("methods", self.methods, at_least_one=True)
        _once("findings", self.findings or (), at_least_one=self.findings is not None)
        _once("sizes", self.sizes or (), at_least_one=self.sizes is not None)
        _once("seeds", self.seeds, at_least_one=bool(self.shares or self.shots))
        for name, value, least in (
            ("k", self.k, 1),
            ("replicates", self.replicates, 1),
            ("seed", self.seed, 0),
            ("shots", min(self.shots, default=1), 1),
            ("sizes", min(self.sizes or (1,)), 1),
        ):
            if value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        if not all(0 < share <= 1 for share in self.shares):
            raise InputError(f"shares must be in (0, 1], got {self.shares}")
        if not 0 < self.validation < 1 or not 0 <= self.specificity <= 1:
            raise InputError(
                f"validation must be in (0, 1) and specificity in [0, 1], got {self.validation} "
                f"and {self.specificity}"
            )


def _once(name: str, values: Sequence[object], *, at_least_one: bool) -> None:
    if (at_least_one and not values) or len(set(values)) < len(values):
        raise InputError(f"{name} must be at least one and each once, got {list(values)}")

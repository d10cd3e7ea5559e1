"""How healthy a representation is: measures of collapse with intervals, spectra and norms."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from cxrssl.analysis.axes import COLOURS, INK, finish, own_axes
from cxrssl.analysis.resampling import patient_numbers
from cxrssl.analysis.spectrum import effective_rank, feature_spread
from cxrssl.errors import InputError

__all__ = ["health_measures", "plot_norms", "plot_spectrum", "spectrum"]

_FOLDS = 20
_FEWEST = 5
_NORMAL = 1.959964  # 97.5th percentile
_MEASURES: dict[str, Callable[[NDArray[np.floating]], float]] = {
    "effective rank": effective_rank,
    "effective rank, centred": partial(effective_rank, centred=True),
    "feature spread": feature_spread,
}


def health_measures(
    features: NDArray[np.floating], patients: Iterable[object] | None = None
) -> pd.DataFrame:
    """Return measures of collapse with 95 % intervals of a jackknife over patients.

    A bootstrap would repeat images and so lower every rank; the jackknife leaves each of up to 20
    groups of patients out in turn (Busing et al. 1999, doi:10.1023/A:1008800423698). A rank depends
    on the number of images: compare ranks of the same images only.

    Args:
        features: (n, D).
        patients: Of each image; each image is a patient of its own if None.

    Returns:
        Columns ``measure``, ``value``, ``low``, ``high`` (NaN with fewer than five patients) and
        ``images``; see :mod:`cxrssl.analysis.spectrum` for the measures.

    Raises:
        ValueError: If there is no feature or one is not finite.
    """
    owners = np.arange(len(features)) if patients is None else patient_numbers(patients)
    rows = []
    for name, measure in _MEASURES.items():
        value = measure(features)
        error = _jackknife_error(measure, features, owners)
        rows.append((name, value, value - _NORMAL * error, value + _NORMAL * error, len(features)))
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "images"])


def spectrum(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the shares of variance along the principal components of features (n, D), descending.

    Raises:
        InputError: If all features are alike.
    """
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    variance = np.square(np.linalg.svd(centred, compute_uv=False))
    total = variance.sum()
    if not total > 0:
        raise InputError("all features are alike: there is no variance to divide")
    shares: NDArray[np.float64] = variance / total
    return shares


def plot_spectrum(features: Mapping[str, NDArray[np.floating]], ax: Axes | None = None) -> Axes:
    """Draw the shares of variance along the principal components, and return the axes.

    Args:
        features: (n, D) by name, a line each.
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If features of one name are all alike.
    """
    axes = own_axes(ax)
    for number, (name, of_name) in enumerate(features.items()):
        shares = spectrum(of_name)
        shares = shares[shares > shares[0] * 1e-9]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(np.arange(1, len(shares) + 1), shares, color=colour, lw=1.6, label=name)
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("principal component", fontsize=8, color=INK)
    finish(axes, "Share of variance")
    _name_lines(axes, features)
    return axes


def plot_norms(norms: Mapping[str, NDArray[np.floating]], ax: Axes | None = None) -> Axes:
    """Draw histograms of the norms of tokens, and return the axes.

    A few patches with many times the norm of the others are artefacts that registers prevent
    (Darcet et al., ICLR 2024, arXiv 2309.16588).

    Args:
        norms: Any number of norms by the kind of token.
        ax: Axes to draw on; those of a new figure if None.

    Raises:
        InputError: If there is no norm, or one is not finite.
    """
    together = np.concatenate([of_kind.ravel() for of_kind in norms.values()] or [np.empty(0)])
    if not together.size or not np.isfinite(together).all():
        raise InputError("norms must be finite, and at least one")
    axes = own_axes(ax)
    top = float(together.max()) or 1.0
    bins = np.linspace(min(float(together.min()), 0.98 * top), top, 41).tolist()
    for number, (name, of_kind) in enumerate(norms.items()):
        axes.hist(
            of_kind.ravel(),
            bins,
            weights=np.full(of_kind.size, 1 / of_kind.size),
            histtype="stepfilled",
            alpha=0.45,
            color=COLOURS[number % len(COLOURS)],
            label=name,
        )
    axes.set_yscale("log")
    axes.set_xlabel("L2 norm", fontsize=8, color=INK)
    finish(axes, "Share of tokens by norm")
    _name_lines(axes, norms)
    return axes


def _name_lines(axes: Axes, named: Mapping[str, object]) -> None:
    if len(named) > 1:
        axes.legend(fontsize=7.5, frameon=False, labelcolor=INK)


def _jackknife_error(
    measure: Callable[[NDArray[np.floating]], float],
    features: NDArray[np.floating],
    owners: NDArray[np.int64],
) -> float:
    """Return the standard error of a measure, NaN with fewer than five patients."""
    n_patients = int(owners.max()) + 1
    if n_patients < _FEWEST:
        return float("nan")
    groups = min(_FOLDS, n_patients)
    left_out = [measure(features[owners % groups != group]) for group in range(groups)]
    return float(np.sqrt((groups - 1) * np.var(left_out)))

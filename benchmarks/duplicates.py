"""Precision and recall of the search for copies, on real radiographs and known copies of them.

    python benchmarks/duplicates.py DATA [--images 150]

DATA is a folder of sets of real radiographs, each with a ``manifest.csv`` whose column ``path`` is
relative to it. Of every set some images are copied by one transformation after the other, and the
copies are searched for among the originals of all sets. Recall is the share of copies whose
original is found; precision the share of the pairs found that are a copy and its original. Last
come the pairs found among the originals alone, which are all different images.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data import read_image
from cxrssl.data.duplicates import find_duplicates, fingerprint

Grey = NDArray[np.uint8]
Transformation = Callable[[Grey], Grey]

SETS = ("nih512", "nih64", "hannover512", "pneumoniamnist28")


def jpeg(quality: int) -> Transformation:
    """Return a transformation that recompresses."""

    def recompress(grey: Grey) -> Grey:
        data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)

    return recompress


def resized(factor: float) -> Transformation:
    """Return a transformation that resizes."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda grey: cv2.resize(grey, None, fx=factor, fy=factor, interpolation=how)


def squashed(side: int) -> Transformation:
    """Return a transformation to a square of some pixels, as MedMNIST and others have it."""
    return lambda grey: cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def mapped(curve: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Transformation:
    """Return a transformation of grey values in [0, 1], clipped."""
    table = (np.clip(curve(np.arange(256) / 255), 0, 1) * 255).round().astype(np.uint8)
    return lambda grey: table[grey]


def cropped(share: float) -> Transformation:
    """Return a transformation that cuts off a share of each side."""

    def crop(grey: Grey) -> Grey:
        rows, columns = (round(share * side) for side in grey.shape)
        return grey[rows : grey.shape[0] - rows, columns : grey.shape[1] - columns]

    return crop


def bordered(grey: Grey) -> Grey:
    """Add a black border of 5 % at each side."""
    rows, columns = (round(0.05 * side) for side in grey.shape)
    return cv2.copyMakeBorder(grey, rows, rows, columns, columns, cv2.BORDER_CONSTANT, value=0)


def centre_square(grey: Grey) -> Grey:
    """Cut out the square at the centre."""
    side = min(grey.shape)
    top, left = ((length - side) // 2 for length in grey.shape)
    return grey[top : top + side, left : left + side]


def re_released(grey: Grey) -> Grey:
    """Do what a collection does: half the size, another gamma, JPEG."""
    return jpeg(75)(resized(0.5)(mapped(lambda value: value**0.8)(grey)))


TRANSFORMATIONS: dict[str, Transformation] = {
    "none": lambda grey: grey,
    "JPEG, quality 95": jpeg(95),
    "JPEG, quality 75": jpeg(75),
    "JPEG, quality 50": jpeg(50),
    "resized to 25 %": resized(0.25),
    "resized to 50 %": resized(0.5),
    "resized to 200 %": resized(2),
    "squashed to 224 x 224": squashed(224),
    "squashed to 64 x 64": squashed(64),
    "squashed to 28 x 28": squashed(28),
    "square at the centre": centre_square,
    "contrast x 0.7": mapped(lambda value: 0.5 + 0.7 * (value - 0.5)),
    "contrast x 1.3, clipped": mapped(lambda value: 0.5 + 1.3 * (value - 0.5)),
    "gamma 0.7": mapped(lambda value: value**0.7),
    "gamma 1.5": mapped(lambda value: value**1.5),
    "brightness + 0.1, clipped": mapped(lambda value: value + 0.1),
    "brightness - 0.1, clipped": mapped(lambda value: value - 0.1),
    "histogram equalised": cv2.equalizeHist,
    "mirrored": lambda grey: grey[:, ::-1],
    "inverted": lambda grey: 255 - grey,
    "mirrored and inverted": lambda grey: 255 - grey[:, ::-1],
    "gamma 0.8, 50 %, JPEG 75": re_released,
    "CLAHE (stretch)": lambda grey: cv2.createCLAHE(2.0, (8, 8)).apply(grey),
    "2 % cut off each side (stretch)": cropped(0.02),
    "5 % cut off each side (stretch)": cropped(0.05),
    "5 % black border (stretch)": bordered,
}


def rows(images: list[Grey]) -> pd.DataFrame:
    """Return the fingerprints of images in memory."""
    made = []
    for grey in images:
        found: Any = fingerprint(np.ascontiguousarray(grey))
        made.append({**found._asdict(), "state": "blank" if found.blank else "ok"})
    return pd.DataFrame(made)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Precision and recall of the search for copies.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=150, help="Images of each set to copy.")
    parser.add_argument("--only", default="", help="Transformations whose name holds this.")
    arguments = parser.parse_args()
    originals, source = [], []
    for name in SETS:
        paths = pd.read_csv(arguments.data / name / "manifest.csv")["path"]
        paths = paths.sample(frac=1, random_state=0)
        originals += [read_image(arguments.data / path).pixels for path in paths]
        source += [name] * len(paths)
    n = len(originals)
    known = rows(originals)
    places = pd.Series(range(n)).groupby(source, sort=False).head(arguments.images).to_numpy()
    sets = np.array(source)[places]
    print(f"| transformation | precision | {' | '.join(f'recall, {name}' for name in SETS)} |")
    print("|---|" + "---|" * (1 + len(SETS)))
    chosen = {name: each for name, each in TRANSFORMATIONS.items() if arguments.only in name}
    for title, transform in chosen.items():
        copies = rows([transform(originals[place]) for place in places])
        pairs = find_duplicates(pd.concat([known, copies], ignore_index=True))
        pairs = pairs[(pairs["first"] < n) & (pairs["second"] >= n)]
        copied = pairs["second"].to_numpy(dtype=np.int64) - n
        right = pairs["first"].to_numpy(dtype=np.int64) == places[copied]
        found = np.isin(np.arange(len(places)), copied[right])
        precision = f"{right.mean():.3f} ({right.sum()} of {len(right)})" if len(right) else "-"
        recalls = " | ".join(f"{found[sets == name].mean():.3f}" for name in SETS)
        print(f"| {title} | {precision} | {recalls} |", flush=True)
    alone = find_duplicates(known)
    print(f"\n{len(alone)} pairs found among {n:,} originals ({n * (n - 1) // 2:,} pairs)")
    for row in alone.itertuples():
        ends = source[int(row.first)], source[int(row.second)]
        print(f"  {ends[0]}, {ends[1]}: distance {row.distance}, {row.correlation:.3f}, {row.look}")


if __name__ == "__main__":
    main()

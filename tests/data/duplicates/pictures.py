"""Smooth pictures, copies of them, and their fingerprints."""

import cv2
import numpy as np
import pandas as pd

from cxrssl.data.duplicates import fingerprint


def picture(seed=0, shape=(96, 80)):
    """Return a picture (H, W) uint8 that no other seed gives, with structures of all sizes."""
    rng = np.random.default_rng(seed)
    layers = [
        weight * cv2.resize(rng.random((side, side)), shape[::-1], interpolation=cv2.INTER_CUBIC)
        for side, weight in ((3, 3.0), (6, 2.0), (12, 1.0))
    ]
    grey = np.sum(layers, axis=0)
    return (20 + 200 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint8)


def jpeg(grey, quality=60):
    data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def smaller(grey, side=64):
    return cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)


def centre(grey):
    return grey[(grey.shape[0] - grey.shape[1]) // 2 :][: grey.shape[1]]


COPIES = {
    "as it is": [
        lambda grey: jpeg(grey),
        lambda grey: smaller(grey),
        lambda grey: centre(grey),
        lambda grey: cv2.equalizeHist(grey),
        lambda grey: (255 * (grey / 255) ** 1.5).astype(np.uint8),
    ],
    "mirrored": [lambda grey: jpeg(grey[:, ::-1])],
    "inverted": [lambda grey: 255 - smaller(grey)],
    "mirrored and inverted": [lambda grey: 255 - centre(grey)[:, ::-1]],
}


def rows(pictures):
    """Return the fingerprints of pictures in memory, as those of files are."""
    made = []
    for number, grey in enumerate(pictures):
        found = fingerprint(grey)
        made.append(
            {
                "key": str(number),
                "size": number,
                "modified": 0,
                "state": "blank" if found.blank else "ok",
                "cause": None,
                "height": grey.shape[0],
                "width": grey.shape[1],
                "bits": 8,
                "exact": found.exact,
                "hashes": found.hashes,
                "thumbnails": found.thumbnails,
            }
        )
    return pd.DataFrame(made)

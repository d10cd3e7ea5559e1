"""Writing miniature releases with the layout, names and traps of the real ones."""

import cv2
import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.config import disable_value_validation
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit

from cxrssl.data import read_image

SIZE = 24


def grey(seed=0, size=SIZE, bits=8):
    """Return a small image (H, W) that no other seed gives."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, (size, size), dtype=np.uint8 if bits == 8 else np.uint16)


def write_image(path, pixels=None, channels=1):
    """Write an image file by its suffix, with its folders; a seed or pixels, 1, 3 or 4 channels."""
    pixels = grey(pixels or 0) if pixels is None or isinstance(pixels, int) else pixels
    if channels > 1:
        pixels = np.dstack([pixels] * 3 + [np.full_like(pixels, 255)] * (channels - 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def write_dicom(path, seed=0, jpeg=False, **elements):
    """Write a DICOM file of any suffix, explicit little endian or JPEG Baseline, with its folders.

    Elements of the header are written as they are given, be they against the rules of their kind.
    """
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    header.PhotometricInterpretation = "MONOCHROME2"
    header.SamplesPerPixel = 1
    header.Rows = header.Columns = SIZE
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit = 7
    header.PixelRepresentation = 0
    pixels = grey(seed)
    encoded = cv2.imencode(".jpg", pixels)[1].tobytes() if jpeg else b""
    header.PixelData = encapsulate([encoded]) if jpeg else pixels.tobytes()
    header["PixelData"].VR = "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        for keyword, value in elements.items():
            setattr(header, keyword, value)
        dcmwrite(path, header, enforce_file_format=True)
    return path


def write_text(path, text, newline="\n"):
    """Write a text file, with its folders and the line ends that are asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.replace("\n", newline).encode())
    return path


def check_release(module):
    """Assert what holds of every index of a release, and return it."""
    index = module.index
    assert not index.empty
    assert (index["dataset"] == type(module).__name__).all()
    assert index["path"].is_unique
    for path in index["path"]:
        assert read_image(path).pixels.ndim == 2
    labels = index[module.labels].to_numpy(dtype=np.float32)
    assert np.isin(labels[~np.isnan(labels)], (1, 0, -1)).all()
    assert index["split"].isin(("train", "val", "test")).all()
    if module.vocabulary == "release":
        assert module.labels == list(module.findings)
    return index

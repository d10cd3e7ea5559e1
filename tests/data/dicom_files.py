"""DICOM files that tests write."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEGLSTransferSyntaxes

from cxrssl.data.image import read_image
from tests.golden import SHARED

SECRET = "ZEBEDEE"


def lut(entries, first=0, depth=16):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, depth])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return [item]


def build(stored, syntax=ExplicitVRLittleEndian, *, drop=(), **elements):
    """Return a radiograph's dataset: stored values (H, W), (F, H, W) or with ``colour``."""
    stored = np.asarray(stored)
    colour = elements.get("SamplesPerPixel", 1) == 3
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.file_meta.TransferSyntaxUID = syntax
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    header.SOPInstanceUID = "1.2.3"
    header.PatientName = SECRET
    header.PatientID = SECRET
    header.Modality = "CR"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.Rows, header.Columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    if stored.ndim == (4 if colour else 3):
        header.NumberOfFrames = len(stored)
    if stored.dtype.kind == "f":
        header.BitsAllocated = 8 * stored.dtype.itemsize
        name = "FloatPixelData" if stored.dtype.itemsize == 4 else "DoubleFloatPixelData"
        setattr(header, name, stored.tobytes())
    else:
        header.BitsAllocated = 8 * stored.dtype.itemsize
        header.BitsStored = 8 * stored.dtype.itemsize
        header.HighBit = header.BitsStored - 1
        header.PixelRepresentation = int(stored.dtype.kind == "i")
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        raw = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
        header.PixelData = raw + b"\0" * (len(raw) % 2)
        header["PixelData"].VR = "OB" if stored.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        setattr(header, keyword, value)
    for keyword in drop:
        del header[keyword]
    return header


def encapsulated(streams, header, syntax):
    """Return a dataset with compressed frames in place of its pixels."""
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate(streams)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    return header


def compress(header, syntax, **options):
    """Compress a dataset in place, and return it."""
    plugin = "pyjpegls" if syntax in JPEGLSTransferSyntaxes else "pylibjpeg"
    header.compress(syntax, encoding_plugin=plugin, **options)  # gdcm's may end the process
    return header


def save(path, header):
    dcmwrite(path, header, enforce_file_format=True)
    return path


def read(path, header, **options):
    return read_image(save(path / "a.dcm", header), **options).pixels


def write(path, content):
    path.write_bytes(content)
    return path


def film(dtype=np.uint16, bits=12, shape=(37, 29), seed=0):
    """Return random stored values over the whole range of their bits."""
    rng = np.random.default_rng(seed)
    low = -(2 ** (bits - 1)) if np.dtype(dtype).kind == "i" else 0
    return rng.integers(low, low + 2**bits, shape).astype(dtype)


def smooth(dtype=np.uint16, bits=12, shape=(64, 48)):
    """Return stored values that change slowly, as lossy codes like it."""
    rows, columns = np.indices(shape)
    return ((2**bits - 1) * (np.sin(rows / 20) + np.cos(columns / 15) + 2) / 4).astype(dtype)


def shared(name) -> Path:
    path = SHARED / "data" / "dicom" / name
    if not path.exists():
        pytest.skip(f"the shared file {name} is not beside this checkout")
    return path

"""The phantom as files, for demonstrations and tests of readers."""

import os
from typing import Literal

import cv2
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from cxrssl.data.phantom.phantom import Phantom
from cxrssl.errors import InputError

__all__ = ["write_dicom", "write_png"]

# A window covers these shares of the stored range, so that values on both sides of it exist.
_WINDOW = (0.2, 0.9)


def write_png(phantom: Phantom, number: int, path: str | os.PathLike[str]) -> None:
    """Write an image as an 8-bit grey PNG.

    Args:
        phantom: The generator.
        number: Which image.
        path: Where to; the folder exists.

    Raises:
        InputError: If the file cannot be written.
    """
    encoded = cv2.imencode(".png", phantom.pixels(number))[1]
    try:
        with open(path, "wb") as file:
            file.write(encoded.tobytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def write_dicom(
    phantom: Phantom,
    number: int,
    path: str | os.PathLike[str],
    *,
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2",
    bits: int = 12,
    window: bool = True,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> None:
    """Write an image as a DICOM file for presentation.

    Decoded, windowed as the header says, inverted where MONOCHROME1 and scaled to 8 bits, it equals
    ``phantom.pixels(number)`` within one grey value.

    Args:
        phantom: The generator.
        number: Which image.
        path: Where to; the folder exists.
        photometric: MONOCHROME1 stores bones dark.
        bits: Bits stored, 8 to 16.
        window: Whether the stored range is wider than the image and a window says which part
            counts; without, the image fills the stored range.
        transfer_syntax: UID of the encoding; compressed ones need pydicom's encoder for it.

    Raises:
        InputError: If an argument is out of range or the file cannot be written.
    """
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"photometric must be MONOCHROME1 or MONOCHROME2, got {photometric!r}")
    if not 8 <= bits <= 16:
        raise InputError(f"bits must be from 8 to 16, got {bits}")
    dataset = _header(phantom, number)
    _add_pixels(dataset, phantom, number, photometric, bits, window)
    try:
        if transfer_syntax != ExplicitVRLittleEndian:
            dataset.compress(transfer_syntax, generate_instance_uid=False)
        dataset.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be encoded as {transfer_syntax}: {error}") from error


def _header(phantom: Phantom, number: int) -> Dataset:
    row = phantom.describe(number)
    own = f"cxrssl phantom {phantom.seed} {number}"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[own, "instance"])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[own, "study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[own, "series"])
    dataset.Modality = "DX"
    dataset.PatientID = row["patient_id"]
    dataset.PatientName = ""
    dataset.PatientSex = row["sex"]
    dataset.PatientAge = f"{row['age']:03d}Y"
    dataset.StudyID = row["study_id"]
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = row["view_position"]
    return dataset


def _add_pixels(
    dataset: Dataset, phantom: Phantom, number: int, photometric: str, bits: int, window: bool
) -> None:
    grey = phantom.grey(number).astype(np.float64)
    if photometric == "MONOCHROME1":
        grey = 1 - grey
    top = 2**bits - 1
    low, high = (round(share * top) for share in (_WINDOW if window else (0, 1)))
    stored = np.rint(low + grey * (high - low)).astype(np.uint8 if bits == 8 else np.uint16)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = photometric
    dataset.PresentationLUTShape = "INVERSE" if photometric == "MONOCHROME1" else "IDENTITY"
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    if window:
        # LINEAR maps from centre - 0.5 - (width - 1) / 2 to centre - 0.5 + (width - 1) / 2.
        dataset.WindowCenter = str((low + high) / 2 + 0.5)
        dataset.WindowWidth = str(high - low + 1)
    dataset.PixelData = stored.tobytes()

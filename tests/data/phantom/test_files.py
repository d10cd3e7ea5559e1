import cv2
import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut
from pydicom.uid import JPEG2000Lossless, RLELossless

from cxrssl.data.phantom import Phantom, write_dicom, write_png
from cxrssl.errors import InputError


@pytest.fixture(scope="module")
def phantom():
    return Phantom(96, seed=6)


def displayed(dataset):
    """Return the pixels as a viewer shows them, in [0, 255]."""
    stored = dataset.pixel_array
    if "WindowCenter" in dataset:
        stored = apply_voi_lut(stored, dataset)
    grey = stored / (2**dataset.BitsStored - 1) * 255
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def test_a_png_holds_the_pixels(phantom, tmp_path):
    write_png(phantom, 3, tmp_path / "image.png")
    read = cv2.imread(str(tmp_path / "image.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, phantom.pixels(3))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("window", [True, False])
def test_a_dicom_file_shows_the_pixels(phantom, tmp_path, photometric, bits, window):
    path = tmp_path / "image.dcm"
    write_dicom(phantom, 3, path, photometric=photometric, bits=bits, window=window)
    dataset = pydicom.dcmread(path)
    assert dataset.BitsStored == bits
    assert ("WindowWidth" in dataset) == window
    assert np.abs(displayed(dataset) - phantom.pixels(3)).max() <= 1.3


def test_stored_values_run_beyond_the_window(phantom, tmp_path):
    write_dicom(phantom, 3, tmp_path / "image.dcm")
    stored = pydicom.dcmread(tmp_path / "image.dcm").pixel_array
    assert stored.min() >= round(0.2 * 4095)
    assert stored.max() <= round(0.9 * 4095)
    assert len(np.unique(stored)) > 400


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_compressed_file_holds_the_same_values(phantom, tmp_path, syntax):
    write_dicom(phantom, 2, tmp_path / "plain.dcm")
    write_dicom(phantom, 2, tmp_path / "small.dcm", transfer_syntax=syntax)
    plain, small = (pydicom.dcmread(tmp_path / name) for name in ("plain.dcm", "small.dcm"))
    assert small.file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(plain.pixel_array, small.pixel_array)


def test_the_header_agrees_with_the_index(phantom, tmp_path):
    row = phantom.index(5).iloc[4]
    write_dicom(phantom, 4, tmp_path / "image.dcm")
    dataset = pydicom.dcmread(tmp_path / "image.dcm")
    assert dataset.PatientID == row["patient_id"]
    assert dataset.StudyID == row["study_id"]
    assert dataset.ViewPosition == row["view_position"]
    assert dataset.PatientSex == row["sex"]
    assert dataset.PatientAge == f"{row['age']:03d}Y"


def test_files_are_reproducible_and_their_identifiers_differ(phantom, tmp_path):
    for name, number in (("a", 0), ("b", 0), ("c", 1)):
        write_dicom(phantom, number, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    first, other = pydicom.dcmread(tmp_path / "a"), pydicom.dcmread(tmp_path / "c")
    assert first.SOPInstanceUID != other.SOPInstanceUID
    assert first.StudyInstanceUID != other.StudyInstanceUID


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"photometric": "RGB"}, "photometric must be MONOCHROME1 or MONOCHROME2, got 'RGB'"),
        ({"bits": 7}, "bits must be from 8 to 16, got 7"),
        (
            {"transfer_syntax": "1.2.840.10008.1.2.4.100"},
            "cannot be encoded as 1.2.840.10008.1.2.4",
        ),
    ],
)
def test_bad_arguments_are_refused(phantom, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        write_dicom(phantom, 0, tmp_path / "image.dcm", **arguments)


@pytest.mark.parametrize("write", [write_dicom, write_png])
def test_a_missing_folder_is_named(phantom, tmp_path, write):
    with pytest.raises(InputError, match=r"missing.image: cannot be written \(No such file"):
        write(phantom, 0, tmp_path / "missing" / "image")

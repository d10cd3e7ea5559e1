"""How pixels lie in DICOM files: transfer syntaxes, bits, frames, colours, and what lies beside."""

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from cxrssl.data.image import ImageReadError, read_image
from tests.data.dicom_files import build, compress, encapsulated, film, read, save, shared, smooth

PLAIN = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)


def same(tmp_path, header, other):
    np.testing.assert_array_equal(read(tmp_path, header), read(tmp_path, other))


# Transfer syntaxes


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32])
def test_plain_syntaxes(tmp_path, syntax, dtype):
    stored = film(dtype, 8)
    same(tmp_path, build(stored, syntax), build(stored))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 12), (np.uint16, 16)])
def test_lossless_syntaxes(tmp_path, syntax, dtype, bits):
    stored = film(dtype, bits, (41, 34))
    header = build(stored, BitsStored=bits, HighBit=bits - 1)
    plain = read(tmp_path, header)
    compress(header, syntax)
    np.testing.assert_array_equal(read(tmp_path, header), plain)


@pytest.mark.parametrize("bits", [7, 8, 12, 16])
@pytest.mark.parametrize("kind", [(JPEGLossless, 0), (JPEGLosslessSV1, 1)])
def test_lossless_jpeg(tmp_path, kind, bits):
    gdcm = pytest.importorskip("gdcm")
    stored = film(np.uint8 if bits <= 8 else np.uint16, bits, (38, 30))
    path = save(tmp_path / "a.dcm", build(stored, BitsStored=bits, HighBit=bits - 1))
    plain = read_image(path).pixels
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), None
    reader.SetFileName(str(path))
    assert reader.Read()
    name = "JPEGLosslessProcess14_1" if kind[1] else "JPEGLosslessProcess14"
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(tmp_path / "b.dcm"))
    assert writer.Write()
    assert dcmread(tmp_path / "b.dcm").file_meta.TransferSyntaxUID == kind[0]
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm").pixels, plain)


@pytest.mark.parametrize("syntax", [JPEG2000, JPEGLSNearLossless])
def test_lossy_syntaxes(tmp_path, syntax):
    stored = smooth()
    header = build(stored, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096)
    plain = read(tmp_path, header)
    compress(header, syntax, **({"j2k_cr": [4]} if syntax == JPEG2000 else {"jls_error": 8}))
    assert np.abs(read(tmp_path, header).astype(int) - plain).max() <= 1


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGExtended12Bit])
def test_jpeg_of_eight_bits(tmp_path, syntax):
    stored = smooth(np.uint8, 8)
    header = build(stored, WindowCenter=128, WindowWidth=256)
    plain = read(tmp_path, header)
    stream = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    if syntax == JPEGExtended12Bit:  # the same code by another name
        stream = stream.replace(b"\xff\xc0", b"\xff\xc1", 1)
    header = encapsulated([stream], header, syntax)
    assert np.abs(read(tmp_path, header).astype(int) - plain).max() <= 3


def test_colour_jpeg(tmp_path):
    rgb = np.stack([smooth(np.uint8, 8), smooth(np.uint8, 7), smooth(np.uint8, 6)], axis=-1)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    header = build(rgb, SamplesPerPixel=3, PlanarConfiguration=0)
    header.PhotometricInterpretation = "YBR_FULL_422"
    stream = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    pixels = read(tmp_path, encapsulated([stream], header, JPEGBaseline8Bit))
    assert np.abs(pixels.astype(int) - grey).max() <= 5


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000(tmp_path, syntax):
    path = shared("original/HTJ2KLossless_08_RGB.dcm")
    header = dcmread(path)
    header.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read(tmp_path, header), read_image(path).pixels)


# Bits


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", PLAIN)
def test_bits_above_those_stored_are_ignored(tmp_path, dtype, syntax):
    clean = film(dtype, 12)
    stray = np.random.default_rng(1).integers(0, 16, clean.shape).astype(np.uint16) << 12
    dirty = ((clean.view(np.uint16) & 0x0FFF) | stray).view(dtype)
    bits = {"BitsStored": 12, "HighBit": 11}
    same(tmp_path, build(dirty, syntax, **bits), build(clean, **bits))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_samples_in_the_upper_bits_come_down(tmp_path, dtype):
    clean = film(dtype, 12)
    overlay = np.random.default_rng(1).integers(0, 16, clean.shape).astype(dtype)
    window = {"WindowCenter": 100, "WindowWidth": 700}
    same(
        tmp_path,
        build((clean << 4) | overlay, BitsStored=12, HighBit=15, **window),
        build(clean, BitsStored=12, HighBit=11, **window),
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("high_bit", [None, 0, 7, 15, 200])
def test_high_bit_that_is_missing_or_wrong(tmp_path, dtype, high_bit):
    stored = film(dtype, 12)
    header = build(stored, BitsStored=12, HighBit=high_bit)
    same(tmp_path, header, build(stored, BitsStored=12, HighBit=11))


@pytest.mark.parametrize("syntax", PLAIN)
def test_one_bit_a_pixel(tmp_path, syntax):
    stored = np.random.default_rng(0).integers(0, 2, (16, 24)).astype(np.uint8)
    packed = np.packbits(stored, bitorder="little").tobytes()
    header = build(stored, syntax, BitsAllocated=1, BitsStored=1, HighBit=0)
    if syntax == ExplicitVRBigEndian:
        header["PixelData"].VR = "OB"
    header.PixelData = packed
    np.testing.assert_array_equal(read(tmp_path, header), 255 * stored)


def test_floats_of_double_precision(tmp_path):
    stored = np.array([[0.5, np.inf], [2.5, 1.5]])
    np.testing.assert_allclose(read(tmp_path, build(stored), depth="float32"), [[0, 0], [1, 0.5]])


# Frames and colours


@pytest.mark.parametrize("syntax", [*PLAIN, RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_chosen_frame(tmp_path, syntax):
    stored = film(shape=(4, 41, 34))
    header = build(stored, syntax if syntax in PLAIN else ExplicitVRLittleEndian)
    if syntax not in PLAIN:
        compress(header, syntax)
    path = save(tmp_path / "many.dcm", header)
    with pytest.raises(ImageReadError, match="it holds 4 frames; say which"):
        read_image(path)
    for frame in range(4):
        alone = read(tmp_path, build(stored[frame]))
        np.testing.assert_array_equal(read_image(path, frame=frame).pixels, alone)


def colours(dtype=np.uint8, bits=8, frames=()):
    return film(dtype, bits, (*frames, 40, 34, 3))


@pytest.mark.parametrize("syntax", PLAIN)
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16), (np.uint16, 12)])
@pytest.mark.parametrize("frames", [(), (2,)])
def test_planar_configuration(tmp_path, syntax, dtype, bits, frames):
    rgb = colours(dtype, bits, frames)
    options = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsStored": bits}
    options["HighBit"] = bits - 1
    header = build(rgb, syntax, PlanarConfiguration=0, **options)
    frame = len(frames) or None
    mixed = read(tmp_path, header, depth="float32", frame=frame)
    unit = rgb[1] / (2**bits - 1) if frames else rgb / (2**bits - 1)
    np.testing.assert_allclose(mixed, unit @ [0.299, 0.587, 0.114], atol=1e-4 + 1 / (2**bits - 1))
    planes = build(rgb, syntax, PlanarConfiguration=1, **options)
    raw = np.moveaxis(rgb, -1, -3).astype(rgb.dtype.newbyteorder("<"))
    planes.PixelData = (raw.byteswap() if syntax == ExplicitVRBigEndian else raw).tobytes()
    np.testing.assert_array_equal(read(tmp_path, planes, depth="float32", frame=frame), mixed)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_compressed_colours(tmp_path, syntax):
    header = build(
        colours(), SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB"
    )
    plain = read(tmp_path, header)
    compress(header, syntax)
    np.testing.assert_array_equal(read(tmp_path, header), plain)


def test_two_pixels_that_share_their_colour(tmp_path):
    luma = smooth(np.uint8, 8, (6, 8))
    stored = np.full((6, 4, 4), 128, np.uint8)  # Y Y Cb Cr, without colour
    stored[..., :2] = luma.reshape(6, 4, 2)
    header = build(np.zeros((6, 8, 3), np.uint8), SamplesPerPixel=3, PlanarConfiguration=0)
    header.PhotometricInterpretation = "YBR_FULL_422"
    header.PixelData = stored.tobytes()
    np.testing.assert_array_equal(read(tmp_path, header), luma)


# What lies beside the pixels


def test_overlays_are_not_drawn(tmp_path):
    stored = film()
    header = build(stored)
    plain = read(tmp_path, header)
    for group in (0x6000, 0x6002):
        header.add_new((group, 0x0010), "US", stored.shape[0])
        header.add_new((group, 0x0011), "US", stored.shape[1])
        header.add_new((group, 0x0040), "CS", "G")
        header.add_new((group, 0x0050), "SS", [1, 1])
        header.add_new((group, 0x0100), "US", 1)
        header.add_new((group, 0x0102), "US", 0)
        header.add_new((group, 0x3000), "OW", b"\xff" * 136)
    np.testing.assert_array_equal(read(tmp_path, header), plain)


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientOrientation": ["R", "F"]},
        {"PatientOrientation": ["F", "L"]},
        {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]},
        {"FieldOfViewRotation": 90, "FieldOfViewHorizontalFlip": "YES"},
        {"PresentationLUTShape": "INVERSE"},
    ],
)
def test_orientation_and_presentation_tags_change_nothing(tmp_path, tags):
    stored = film()
    same(tmp_path, build(stored, **tags), build(stored))

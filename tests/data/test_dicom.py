import csv
import logging
import pickle
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrssl.data import dicom_header, dicom_pixels
from cxrssl.data.image import ImageReadError, is_image_file, read_image
from tests.data.dicom_files import (
    SECRET,
    build,
    encapsulated,
    film,
    lut,
    read,
    save,
    shared,
    write,
)
from tests.golden import SHARED

# Grey scale, by hand


def test_without_window_the_extremes_are_black_and_white(tmp_path):
    header = build(np.array([[100, 200], [300, 500]], np.uint16), BitsStored=12, HighBit=11)
    image = read_image(save(tmp_path / "a.dcm", header))
    assert (image.bits, image.source) == (12, str(tmp_path / "a.dcm"))
    # (v - 100) / 400 * 255 = 0, 63.75, 127.5 (to even), 255
    np.testing.assert_array_equal(image.pixels, [[0, 64], [128, 255]])
    fine = read_image(tmp_path / "a.dcm", depth="float32").pixels
    assert fine.dtype == np.float32
    np.testing.assert_allclose(fine, [[0, 0.25], [0.5, 1]])


def test_monochrome1_is_inverted(tmp_path):
    stored = np.array([[100, 200], [300, 500]], np.uint16)
    header = build(stored, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), [[1, 0.75], [0.5, 0]])


def test_linear_window(tmp_path):
    # Centre 4, width 5: black up to 3.5 - 2 = 1.5, white above 3.5 + 2 = 5.5, a quarter a step.
    header = build(np.arange(8, dtype=np.uint8)[None], WindowCenter=4, WindowWidth=5)
    expected = [[0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]]
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected)


def test_linear_exact_and_sigmoid_windows(tmp_path):
    window = {"WindowCenter": 4, "WindowWidth": 4}
    stored = np.arange(8, dtype=np.uint8)[None]
    header = build(stored, VOILUTFunction="LINEAR_EXACT", **window)
    expected = [[0, 0, 0, 0.25, 0.5, 0.75, 1, 1]]
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected)
    header = build(stored, VOILUTFunction="SIGMOID", **window)
    expected = 1 / (1 + np.exp(-(stored - 4.0)))
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected, rtol=1e-6)


def test_first_of_several_windows(tmp_path):
    stored = film()
    one = build(stored, WindowCenter=2000, WindowWidth=900)
    several = build(stored, WindowCenter=[2000, 5], WindowWidth=[900, 7])
    np.testing.assert_array_equal(read(tmp_path, several), read(tmp_path, one))


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": None},
        {"WindowCenter": 40},
        {"RescaleSlope": None, "RescaleIntercept": None, "VOILUTFunction": ""},
    ],
)
def test_unusable_elements_count_as_absent(tmp_path, window):
    stored = film()
    plain = read(tmp_path, build(stored))
    np.testing.assert_array_equal(read(tmp_path, build(stored, **window)), plain)


def test_negative_slope_turns_the_order_of_values(tmp_path):
    stored = np.array([[0, 1], [2, 4]], np.uint8)
    rescale = {"RescaleSlope": -10, "RescaleIntercept": 0}
    header = build(stored, **rescale)
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), [[1, 0.75], [0.5, 0]])
    window = {"WindowCenter": -20, "WindowWidth": 40, "VOILUTFunction": "LINEAR_EXACT"}
    header = build(stored, **rescale, **window)
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), [[1, 0.75], [0.5, 0]])


def test_lut_entries_of_eight_bits_for_deeper_values(tmp_path):
    entries = [0] * 300 + [51] * 100 + [255]
    stored = np.array([[0, 299, 300], [399, 400, 4000]], np.uint16)
    header = build(stored, VOILUTSequence=lut(entries, depth=8))
    np.testing.assert_array_equal(read(tmp_path, header), [[0, 0, 51], [51, 255, 255]])


def test_lut_goes_before_window_and_starts_at_its_first_value(tmp_path):
    stored = np.array([[-9, -4], [-3, 7]], np.int16)
    header = build(
        stored, VOILUTSequence=lut([0, 1023, 4095], first=-4, depth=12), WindowCenter=0,
        WindowWidth=2,
    )  # fmt: skip
    expected = [[0, 0], [1023 / 4095, 1]]
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected, rtol=1e-6)


def test_modality_lut_and_extremes_that_do_not_occur(tmp_path):
    # The table's largest entry belongs to a value that no pixel has.
    header = build(np.array([[0, 1, 3]], np.uint16), ModalityLUTSequence=lut([10, 20, 90, 30]))
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), [[0, 0.5, 1]])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 150.5, "WindowWidth": 101}])
def test_padding_is_black_and_not_an_extreme(tmp_path, photometric, window):
    stored = np.array([[100, 200], [9000, 150]], np.uint16)
    options = {"PhotometricInterpretation": photometric, **window}
    image = read(tmp_path, build(stored, PixelPaddingValue=9000, **options), depth="float32")
    assert image[1, 0] == 0
    assert image.max() == 1
    assert sorted(image[0]) == [0, 1]
    padded = {"PixelPaddingValue": 8000, "PixelPaddingRangeLimit": 9500}
    np.testing.assert_array_equal(
        read(tmp_path, build(stored, **padded, **options), depth="float32"), image
    )


def test_padding_written_with_the_other_sign(tmp_path):
    stored = np.array([[-2000, 0], [10, 20]], np.int16)
    header = build(stored)
    header.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), [[0, 0], [0.5, 1]])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_image_of_one_value_is_black(tmp_path, photometric):
    for padding in ({}, {"PixelPaddingValue": 7}):
        stored = np.full((3, 4), 7, np.uint16)
        header = build(stored, PhotometricInterpretation=photometric, **padding)
        assert not read(tmp_path, header).any()


def test_floating_point_pixels(tmp_path):
    stored = np.array([[0.5, np.nan], [2.5, 1.5]], np.float32)
    np.testing.assert_allclose(read(tmp_path, build(stored), depth="float32"), [[0, 0], [1, 0.5]])
    window = {"WindowCenter": 2, "WindowWidth": 2, "VOILUTFunction": "LINEAR_EXACT"}
    header = build(stored, PhotometricInterpretation="MONOCHROME1", **window)
    expected = [[1, 0], [0.25, 0.75]]
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected)


# Grey scale, against pydicom's functions on every pixel


def reference(header, stored):
    """Return the image by pydicom's functions in float64, pixel by pixel."""
    values = apply_modality_lut(stored.astype(np.int64), header)
    low, high = values.min(), values.max()
    if "VOILUTSequence" in header:
        values = apply_voi_lut(np.rint(values).astype(np.int64), header)
        low, high = 0, 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif "WindowCenter" in header:
        with np.errstate(over="ignore"):  # at the far ends of a sigmoid
            values = apply_voi_lut(values, header)
        signed = header.PixelRepresentation
        low, high = np.array([0, 2**header.BitsStored - 1]) - signed * 2 ** (header.BitsStored - 1)
        if "ModalityLUTSequence" in header:
            low, high = 0, 2 ** header.ModalityLUTSequence[0].LUTDescriptor[2] - 1
        slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
        low, high = low * slope + intercept, high * slope + intercept
    grey = (values - low) / (high - low)
    return 1 - grey if header.PhotometricInterpretation == "MONOCHROME1" else grey


SCALES = {
    "plain": {},
    "rescale": {"RescaleSlope": 0.7, "RescaleIntercept": -31.5},
    "linear": {"WindowCenter": 90, "WindowWidth": 77},
    "exact": {"WindowCenter": 90.5, "WindowWidth": 77.25, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 90, "WindowWidth": 77, "VOILUTFunction": "SIGMOID"},
    "both": {"RescaleSlope": 2, "RescaleIntercept": 9, "WindowCenter": 70, "WindowWidth": 90},
    "lut": {"VOILUTSequence": lut(np.arange(200) ** 2 // 10, first=20, depth=12)},
    "rescaled lut": {
        "RescaleSlope": 0.5, "RescaleIntercept": 3,
        "VOILUTSequence": lut(range(0, 1000, 10), first=5, depth=10),
    },
    "modality": {"ModalityLUTSequence": lut(np.arange(180) * 7, first=3, depth=16)},
    "modality and window": {
        "ModalityLUTSequence": lut(np.arange(180)[::-1], first=3),
        "WindowCenter": 90, "WindowWidth": 77,
    },
}  # fmt: skip


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES.keys())
@pytest.mark.parametrize(
    ("dtype", "bits"),
    [(np.uint8, 8), (np.int8, 7), (np.uint16, 12), (np.int16, 12), (np.uint16, 16), (np.int16, 16)],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_table_equals_the_slow_path(tmp_path, scale, dtype, bits, photometric):
    stored = film(dtype, bits)
    options = {"BitsStored": bits, "HighBit": bits - 1, "PhotometricInterpretation": photometric}
    header = build(stored, **options, **scale)
    expected = reference(header, stored)
    fine = read(tmp_path, header, depth="float32")
    np.testing.assert_allclose(fine, expected, atol=1e-6)
    coarse = read(tmp_path, header)
    assert np.abs(coarse - expected * 255).max() <= 0.5 + 1e-9


def test_wide_integers(tmp_path):
    stored = film(np.uint32, 20)
    header = build(stored, BitsStored=20, HighBit=19, WindowCenter=5e5, WindowWidth=4e5)
    expected = reference(header, stored)
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected, atol=1e-6)


def test_high_bit_depth_survives_in_float(tmp_path):
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    header = build(stored, BitsStored=12, HighBit=11)
    assert len(np.unique(read(tmp_path, header, depth="float32"))) == 4096


# Containers, colour, frames


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
def test_uncompressed_syntaxes(tmp_path, syntax):
    stored = film(np.int16, 12)
    plain = read(tmp_path, build(stored))
    np.testing.assert_array_equal(read(tmp_path, build(stored, syntax)), plain)


def test_compressed_syntax(tmp_path):
    stored = film()
    header = build(stored)
    plain = read(tmp_path, header)
    header.compress(RLELossless)
    np.testing.assert_array_equal(read(tmp_path, header), plain)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_file_without_preamble_or_meta_information(tmp_path, syntax):
    stored = film()
    plain = read(tmp_path, build(stored, syntax))
    content = (tmp_path / "a.dcm").read_bytes()
    (length,) = struct.unpack_from("<I", content, 140)
    for start in (132, 144 + length):
        path = write(tmp_path / "b", content[start:])
        np.testing.assert_array_equal(read_image(path).pixels, plain)
    assert is_image_file(tmp_path / "a.dcm")


def test_header_without_high_bit(tmp_path):
    stored = film()
    np.testing.assert_array_equal(
        read(tmp_path, build(stored, drop=["HighBit"])), read(tmp_path, build(stored))
    )


@pytest.mark.parametrize(
    ("photometric", "dtype"), [("RGB", np.uint8), ("RGB", np.uint16), ("YBR_FULL", np.uint8)]
)
def test_colour_becomes_luma(tmp_path, photometric, dtype):
    white = np.iinfo(dtype).max
    rgb = np.array([[[white, 0, 0], [0, white, 0], [0, 0, white], [white] * 3]], dtype)
    stored = rgb
    if photometric == "YBR_FULL":
        stored = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    header = build(
        stored, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation=photometric
    )
    expected = [[0.299, 0.587, 0.114, 1]]
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected, atol=1.5 / 255)


def test_palette_becomes_luma(tmp_path):
    header = build(np.array([[0, 1, 2, 3]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in {
        "Red": [0, 65535, 0, 20000],
        "Green": [0, 0, 65535, 20000],
        "Blue": [0, 0, 0, 20000],
    }.items():
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 16])
        table = np.array(entries, "<u2").tobytes()
        setattr(header, f"{colour}PaletteColorLookupTableData", table)
    expected = [[0, 0.299, 0.587, 20000 / 65535]]
    np.testing.assert_allclose(read(tmp_path, header, depth="float32"), expected, atol=1e-3)


def test_frames(tmp_path):
    stored = film(shape=(3, 9, 8))
    path = save(tmp_path / "a.dcm", build(stored))
    with pytest.raises(ImageReadError, match="it holds 3 frames; say which with frame=0 to frame="):
        read_image(path)
    for frame in range(3):
        alone = read(tmp_path, build(stored[frame]))
        save(path, build(stored))
        np.testing.assert_array_equal(read_image(path, frame=frame).pixels, alone)
    with pytest.raises(ImageReadError, match="it has no frame 3; it holds 3"):
        read_image(path, frame=3)
    single = save(path, build(stored[:1]))
    np.testing.assert_array_equal(read_image(single).pixels, read_image(single, frame=0).pixels)


# Files that are refused


def compressed(stream, syntax, **elements):
    return encapsulated([stream], build(np.zeros((4, 4), np.uint8), **elements), syntax)


def broken(**elements):
    return build(film(), **elements)


WINDOW = {"WindowCenter": 5, "WindowWidth": 5}
SIZE = struct.pack(">HH8IH", 41, 0, 70000, 70000, 0, 0, 70000, 70000, 0, 0, 1)
SIZ = b"\xff\x4f\xff\x51" + SIZE + bytes(20)
SOF = b"\xff\xd8\xff\xc3\0\x0b\x08\xff\xf0\xff\xf0\x01\0\0\0" + bytes(20)


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        (broken(drop=["PixelData"]), "it holds no pixel data: it is not an image"),
        (broken(PixelData=b""), "it holds no pixel data"),
        (broken(drop=["Rows"]), "its header lacks Rows"),
        (broken(drop=["PhotometricInterpretation"]), "lacks PhotometricInterpretation"),
        (broken(drop=["PixelRepresentation"]), r"cannot be decoded \(AttributeError at .*0103"),
        (broken(Rows=0), "claims 29 x 0 pixels"),
        (broken(Rows=65000, Columns=65000), "claims 65000 x 65000 pixels"),
        (broken(Rows=38), "pixel data is cut short: 2146 of 2204 bytes"),
        (broken(NumberOfFrames=2**30), "it holds 1073741824 frames"),
        (broken(BitsAllocated=13), "cannot be decoded"),
        (broken(PhotometricInterpretation=SECRET), "cannot be decoded"),
        (broken(PhotometricInterpretation="YBR_PARTIAL_420"), "photometric interpretation is none"),
        (build(np.zeros((2, 2, 3), np.uint8), SamplesPerPixel=3, PlanarConfiguration=0),
         "it is monochrome but has several samples"),
        (broken(**WINDOW, VOILUTFunction=SECRET), r"grey scale cannot be applied \(ValueError"),
        (broken(**WINDOW, RescaleSlope=0, RescaleIntercept=0), "leaves no finite grey values"),
        (compressed(SIZ, JPEG2000Lossless), "claims 4 x 4 x 1 values, .* data 70000 x 70000 x 1"),
        (compressed(SOF, JPEGExtended12Bit), "4 x 4 x 1 values, .* data 65520 x 65520 x 1"),
        (compressed(SOF[:2] + b"?" + SOF[2:], JPEGExtended12Bit), "header of its compressed"),
        (compressed(SOF.replace(b"\x08", b"\x28"), JPEGExtended12Bit), "header of its compr"),
        (compressed(b"nothing", JPEGBaseline8Bit), "header of its compressed"),
        (compressed(SOF, "1.2.840.10008.1.2.4.100"), r"transfer syntax MPEG2 .* is not supp"),
        (build(film(), "1.2.3.4"), r"transfer syntax \(unregistered\) is not supported"),
    ],
)  # fmt: skip
def test_refused_headers(tmp_path, header, cause):
    path = tmp_path / "a.dcm"
    dcmwrite(path, header, implicit_vr=False, little_endian=True)
    with pytest.raises(ImageReadError, match=cause) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_missing_decoder_names_the_extra(tmp_path, monkeypatch):
    header = build(film())
    header.compress(RLELossless)
    path = save(tmp_path / "a.dcm", header)
    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda _: SimpleNamespace(is_available=False))
    with pytest.raises(
        ImageReadError, match=r'RLE Lossless needs a decoder .* pip install "cxrssl\[dicom\]"'
    ):
        read_image(path)


@pytest.mark.parametrize(
    ("syntax", "available", "chosen"),
    [
        (JPEGLSLossless, ("gdcm", "pyjpegls", "pylibjpeg"), "pyjpegls"),
        (JPEG2000Lossless, ("gdcm", "pillow", "pylibjpeg"), "pylibjpeg"),
        (JPEG2000Lossless, ("gdcm", "pillow"), "pillow"),
        (JPEGBaseline8Bit, ("gdcm", "pillow", "pylibjpeg"), "pillow"),
        (JPEGExtended12Bit, ("gdcm", "pillow"), "gdcm"),
        (JPEGLosslessSV1, ("gdcm",), "gdcm"),
        (RLELossless, ("pydicom", "pylibjpeg"), "pylibjpeg"),
        (ExplicitVRLittleEndian, (), ""),
    ],
)
def test_choice_of_decoder(tmp_path, monkeypatch, syntax, available, chosen):
    decoder = SimpleNamespace(
        UID=syntax, is_available=True, is_encapsulated=False, available_plugins=available
    )
    used = []

    def decode(header, index, decoding_plugin):
        used.append(decoding_plugin)
        return film()

    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda _: decoder)
    monkeypatch.setattr(dicom_pixels, "pixel_array", decode)
    read(tmp_path, build(film()))
    assert used == [chosen]


def test_deflated_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_header, "_MAX_UNFOLDED", 2**20)
    path = save(
        tmp_path / "a.dcm", build(np.zeros((2000, 2000), np.uint8), DeflatedExplicitVRLittleEndian)
    )
    assert path.stat().st_size < 20_000
    with pytest.raises(ImageReadError, match="deflated content unfolds beyond 1048576 bytes"):
        read_image(path)


class Panic(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [Panic(SECRET), RuntimeError(SECRET), MemoryError(), zlib.error()]
)
def test_failing_decoder(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    path = save(tmp_path / "a.dcm", build(film()))
    monkeypatch.setattr(dicom_pixels, "pixel_array", fail)
    with pytest.raises(
        ImageReadError, match=rf"cannot be decoded \(.*{type(error).__name__}\)"
    ) as caught:
        read_image(path)
    assert SECRET not in str(caught.value)
    for stop in (KeyboardInterrupt, SystemExit):
        error = stop()
        with pytest.raises(stop):
            read_image(path)


def test_nothing_is_said_of_the_header(tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    header = build(film(), WindowCenter="1234567", WindowWidth=5)
    content = save(tmp_path / "a.dcm", header).read_bytes().replace(b"1234567", SECRET.encode())
    path = write(tmp_path / "b.dcm", content)
    caplog.clear()
    with pytest.raises(ImageReadError, match=r"grey scale cannot be applied") as caught:
        read_image(path)
    assert SECRET not in str(caught.value)
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert capsys.readouterr() == ("", "")
    # The user's own use of pydicom keeps its voice.
    logging.getLogger("pydicom").warning("heard")
    assert "heard" in caplog.text


def damage(content, rng, trial):
    """Return a copy with flipped bits, half of them in the header, or cut, or both."""
    damaged = bytearray(content)
    reach = 700 if trial % 2 else len(content)
    for position in rng.integers(0, reach, rng.integers(1, 6)):
        damaged[position] ^= 1 << rng.integers(8)
    return damaged[: rng.integers(1, len(content))] if trial % 5 == 0 else damaged


def survives(path, content, trials, seed):
    rng = np.random.default_rng(seed)
    errors = []
    for trial in range(trials):
        try:
            pixels = read_image(write(path, damage(content, rng, trial))).pixels
        except ImageReadError as error:
            errors.append(str(error))
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 2
    assert errors
    assert SECRET not in "".join(errors)


@pytest.mark.parametrize("scale", ["linear", "lut", "modality and window"])
def test_damaged_files_end_in_an_image_or_the_error(tmp_path, scale):
    path = save(tmp_path / "a.dcm", build(film(), PixelPaddingValue=3, **SCALES[scale]))
    survives(tmp_path / "b.dcm", path.read_bytes(), trials=80, seed=1)


# Real files


@pytest.fixture(scope="module")
def manifest():
    with shared("manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_shared_file_reads_as_its_manifest_says(manifest):
    assert len(manifest) == 50
    for row in manifest:
        path = SHARED / "data" / row["path"]
        if row["decoded"] != "yes":
            with pytest.raises(ImageReadError, match=r"short|lacks|cannot be dec|not supported"):
                read_image(path, frame=0 if row["frames"] == "3" else None)
            continue
        frames = int(row["frames"] or 1)
        if frames > 1:
            with pytest.raises(ImageReadError, match=f"it holds {frames} frames"):
                read_image(path)
        image = read_image(path, frame=frames - 1)
        assert image.pixels.shape == (int(row["rows"]), int(row["columns"])), row["path"]
        assert image.bits == int(row["bits_stored"] or row["bits_allocated"]), row["path"]
        assert image.pixels.min() < image.pixels.max(), row["path"]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        *((f"chest_mono1_{name}.dcm", 0) for name in (
            "deflated", "explicit_be", "implicit_le", "j2k_lossless", "jpeg_lossless_p14",
            "jpeg_lossless_sv1", "jpegls_lossless", "multi_window", "rle", "signed16_rescale",
        )),
        ("chest_mono1_jpegls_near.dcm", 1),
        ("chest_mono1_j2k_lossy.dcm", 4),
        ("chest_mono2_explicit_le.dcm", 0),
    ],
)  # fmt: skip
def test_variants_of_one_chest_show_the_same_picture(name, tolerance):
    plain = read_image(shared("derived/chest_mono1_explicit_le.dcm")).pixels.astype(int)
    variant = read_image(shared(f"derived/{name}")).pixels
    assert np.abs(variant - plain).max() <= tolerance


@pytest.mark.parametrize("name", ["explicit_le", "12bit_voilut", "sigmoid", "no_window"])
def test_stored_values_of_the_chest_give_its_picture(name):
    path = shared(f"derived/chest_mono1_{name}.dcm")
    prefix = "expected_12bit_stored" if name == "12bit_voilut" else "expected_stored"
    expected = reference(dcmread(path), np.load(shared(f"derived/{prefix}_values.npy")))
    np.testing.assert_allclose(read_image(path, depth="float32").pixels, expected, atol=1e-6)


def test_bones_are_bright():
    for name in ("mono1_explicit_le", "mono2_explicit_le", "mono1_no_window", "mono1_sigmoid"):
        pixels = read_image(shared(f"derived/chest_{name}.dcm"), depth="float32").pixels
        height, width = pixels.shape
        middle = pixels[height // 3 : height // 2, 2 * width // 5 : 3 * width // 5].mean()
        corners = np.mean([pixels[:20, :20], pixels[:20, -20:]])
        assert middle > corners + 0.1, name


def test_false_monochrome1_is_the_exact_inverse():
    right = read_image(shared("original/siim_chest_jpeg_baseline.dcm")).pixels
    wrong = read_image(shared("original/siim_chest_fake_monochrome1.dcm")).pixels
    assert np.abs(right.astype(int) + wrong - 255).max() <= 1


@pytest.mark.parametrize(
    "name", ["rle", "j2k_lossless", "jpeg_lossless_sv1", "jpegls_lossless", "deflated"]
)
def test_damaged_compressed_files_end_in_an_image_or_the_error(tmp_path, name):
    content = shared(f"derived/chest_mono1_{name}.dcm").read_bytes()
    survives(tmp_path / "b.dcm", content, trials=24, seed=2)

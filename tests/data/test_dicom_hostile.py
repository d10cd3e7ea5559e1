"""DICOM files that claim more than they hold, or hold what nobody needs."""

import logging
import re
import struct
import zlib

import numpy as np
import pydicom.config
import pytest
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from cxrssl.data import dicom_header, dicom_pixels
from cxrssl.data.image import ImageReadError, read_image
from cxrssl.data.jpeg import jpeg_frame
from tests.data.dicom_files import (
    SECRET,
    build,
    compress,
    encapsulated,
    film,
    lut,
    read,
    save,
    write,
)

UNDEFINED = 2**32 - 1


def refused(path, cause):
    with pytest.raises(ImageReadError, match=cause) as caught:
        read_image(path, frame=0)
    assert SECRET not in str(caught.value)


def opened(syntax, length=UNDEFINED, item=UNDEFINED):
    """Return the beginning of a sequence and of its first item."""
    tag = struct.pack("<HH", 0x0008, 0x1140)
    kind = b"SQ\0\0" if syntax == ExplicitVRLittleEndian else b""
    return tag + kind + struct.pack("<IHHI", length, 0xFFFE, 0xE000, item)


CLOSED = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)


def insert(tmp_path, syntax, elements):
    """Return a good file with elements put before its own."""
    content = save(tmp_path / "a.dcm", build(film(), syntax)).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    return write(tmp_path / "b.dcm", content[:start] + elements + content[start:])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("end", [b"", CLOSED])
def test_sequences_nested_thousands_deep(tmp_path, syntax, end):
    depth = 5000
    path = insert(tmp_path, syntax, opened(syntax) * depth + end * depth)
    refused(path, r"header is damaged or incomplete \((RecursionError|OSError)|no pixel data")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_nested_sequences_of_known_length_are_passed_over(tmp_path, syntax):
    depth, step = 5000, len(opened(syntax))
    left = [step * (depth - level - 1) for level in range(depth)]
    nest = b"".join(opened(syntax, 8 + length, length) for length in left)
    plain = read(tmp_path, build(film()))
    np.testing.assert_array_equal(read_image(insert(tmp_path, syntax, nest)).pixels, plain)


def test_table_that_holds_nested_sequences(tmp_path):
    table = lut(range(0, 65536, 8192))
    plain = read(tmp_path, build(film(np.uint8, 3), VOILUTSequence=table))
    for _ in range(100):
        outer = Dataset()
        outer.ReferencedImageSequence = table
        table = [outer]
    table[0].update(lut(range(0, 65536, 8192))[0])
    header = build(film(np.uint8, 3), VOILUTSequence=table)
    np.testing.assert_array_equal(read(tmp_path, header), plain)


def test_endless_elements_and_items(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_header, "_MAX_READS", 1000)
    empty = struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 0) * 1000
    refused(insert(tmp_path, ExplicitVRLittleEndian, empty), "more elements than any radiograph")
    items = opened(ExplicitVRLittleEndian, item=0) + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 1000
    path = insert(tmp_path, ExplicitVRLittleEndian, items + CLOSED[8:])
    refused(path, r"more elements than any|damaged .* \(OSError")


def test_long_elements(tmp_path):
    header = build(film(np.uint8, 8), ImplicitVRLittleEndian, WindowWidth=1)
    content = save(tmp_path / "a.dcm", header).read_bytes()
    long = struct.pack("<HHI", 0x0028, 0x1050, 2**20 + 2) + b"1" * (2**20 + 2)
    at = content.index(struct.pack("<HH", 0x0028, 0x1051))
    path = write(tmp_path / "b.dcm", content[:at] + long + content[at:])
    refused(path, "its WindowCenter has 1048578 bytes")


@pytest.mark.parametrize(
    ("elements", "cause"),
    [
        ({"Rows": 8192, "Columns": 8193}, "claims 8193 x 8192 pixels; from 1 to"),
        ({"Rows": 8000, "Columns": 8000, "SamplesPerPixel": 65535}, "more than any radiograph"),
        ({"Rows": 8000, "Columns": 8000, "BitsAllocated": 65528}, "more than any radiograph"),
        ({"Rows": 8000, "Columns": 8000, "BitsAllocated": 32}, "8000 x 8000 pixels of 1 x 32 bits"),
        ({"Rows": 8000, "Columns": 8000}, "cut short: 2146 of 128000000 bytes"),
        ({"NumberOfFrames": 2**31 - 1}, "cut short: 2146 of"),
        ({"BitsStored": 200}, "cannot be decoded"),
        ({"BitsStored": 0}, "cannot be decoded"),
        ({"SamplesPerPixel": 0}, "cannot be decoded"),
    ],
)
def test_huge_claims(tmp_path, elements, cause):
    refused(save(tmp_path / "a.dcm", build(film(), **elements)), cause)


def j2k(width=4, height=4, tile=4, samples=1):
    size = struct.pack(">HH8IH", 41, 0, width, height, 0, 0, tile, tile, 0, 0, samples)
    return b"\xff\x4f\xff\x51" + size + bytes(20)


def jpeg(width=4, height=4, samples=1, precision=8, marker=b"\xff\xc3"):
    return b"\xff\xd8" + marker + struct.pack(">HBHHB", 11, precision, height, width, samples)


@pytest.mark.parametrize(
    ("stream", "syntax", "cause"),
    [
        (j2k(samples=16384), JPEG2000Lossless, "4 x 4 x 1 values, .* 4 x 4 x 16384"),
        (j2k(width=5), JPEG2000Lossless, "4 x 4 x 1 values, .* 5 x 4 x 1"),
        (j2k(tile=0), JPEG2000Lossless, "header of its compressed pixel data is damaged"),
        (j2k(width=2**20, height=2**20, tile=1), JPEG2000Lossless, "is damaged"),
        (j2k()[:30], JPEG2000Lossless, "is damaged"),
        (jpeg(), JPEG2000Lossless, "is damaged"),
        (jpeg(samples=255) + bytes(9), JPEGLSLossless, "4 x 4 x 1 values, .* 4 x 4 x 255"),
        (j2k(), JPEGLSLossless, "is damaged"),
        (jpeg(precision=1) + bytes(9), JPEGLosslessSV1, "is damaged"),
        (b"\xff\xd8" + b"\xff" * 2**18 + jpeg()[2:] + bytes(9), JPEGLosslessSV1, "is damaged"),
        (jpeg(precision=12) + bytes(9), JPEGLosslessSV1, "is damaged"),  # in eight bits
        (jpeg() + bytes(9), JPEGLosslessSV1, "compressed pixel data is damaged or cut short"),
        (bytes(64), RLELossless, "cannot be decoded"),
    ],
)
def test_streams_that_claim_something_else(tmp_path, stream, syntax, cause):
    header = encapsulated([stream], build(np.zeros((4, 4), np.uint8)), syntax)
    refused(save(tmp_path / "a.dcm", header), cause)


def test_extended_jpeg_of_twelve_bits_names_its_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_pixels, "_choose_plugin", lambda _: "gdcm")
    header = build(np.zeros((4, 4), np.uint16), BitsStored=12, HighBit=11)
    stream = jpeg(precision=12, marker=b"\xff\xc1") + bytes(9)
    path = save(tmp_path / "a.dcm", encapsulated([stream], header, JPEGExtended12Bit))
    refused(path, r"more than 8 bits needs a decoder .* pip install pylibjpeg-libjpeg, .* GPL")


def test_runs_cannot_unfold_to_more_than_their_code_allows(tmp_path):
    header = build(np.zeros((4, 4), np.uint8), Rows=8000, Columns=8000)
    refused(
        save(tmp_path / "a.dcm", encapsulated([bytes(64)], header, RLELossless)),
        "cut short: 64 bytes for 64000000",
    )
    flat = build(np.zeros((500, 500), np.uint16))  # the best that runs can do
    compress(flat, RLELossless)
    assert not read(tmp_path, flat).any()


def test_frame_header_is_looked_for_in_so_many_segments():
    assert jpeg_frame(b"\xff\xd8" + b"\xff\x01" * 100 + jpeg()[2:] + bytes(9))[:3] == (4, 4, 8)
    assert jpeg_frame(b"\xff\xd8" + b"\xff\x01" * 2**17 + jpeg()[2:] + bytes(9)) is None


# Deflated files


def deflated(tmp_path, **options):
    header = build(film(), DeflatedExplicitVRLittleEndian, **options)
    return save(tmp_path / "a.dcm", header).read_bytes()


def test_deflated_file_that_unfolds_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_header, "_MAX_UNFOLDED", 2**20)
    header = build(np.zeros((2000, 2000), np.uint8), DeflatedExplicitVRLittleEndian)
    path = save(tmp_path / "a.dcm", header)
    assert path.stat().st_size < 20_000
    refused(path, "deflated content unfolds beyond 1048576 bytes")
    # A wrong length of the meta information hides nothing.
    content = bytearray(path.read_bytes())
    content[140:144] = struct.pack("<I", 2**31)
    refused(write(path, content), "deflated content unfolds beyond 1048576 bytes")
    content[128:132] = b"\0\0\0\0"  # nor does a missing preamble
    refused(write(path, content[132:]), "deflated content unfolds beyond 1048576 bytes")


def test_deflated_file_that_is_cut_short_or_goes_on(tmp_path):
    plain = read(tmp_path, build(film()))
    content = deflated(tmp_path)
    path = tmp_path / "b.dcm"
    refused(write(path, content[:-60]), "deflated content is cut short")
    np.testing.assert_array_equal(read_image(write(path, content + bytes(7))).pixels, plain)


def test_deflated_endless_elements(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_header, "_MAX_READS", 1000)
    content = deflated(tmp_path)
    start = 144 + int.from_bytes(content[140:144], "little")
    folder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    flood = folder.compress(struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 0) * 5000)
    path = write(tmp_path / "b.dcm", content[:start] + flood + folder.flush())
    refused(path, "more elements than any radiograph")


def test_plain_file_that_mentions_the_deflated_syntax(tmp_path):
    header = build(film())
    plain = read(tmp_path, header)
    header.StudyDescription = str(DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read(tmp_path, header), plain)


def test_syntax_that_only_pydicom_would_take_for_deflated(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_header, "_unfold", lambda data: data)
    refused(write(tmp_path / "b.dcm", deflated(tmp_path)), "its meta information is damaged")


# Discretion


@pytest.mark.parametrize(
    "elements",
    [
        {"PhotometricInterpretation": SECRET},
        {"WindowCenter": 1, "WindowWidth": 1, "VOILUTFunction": SECRET},
        {"NumberOfFrames": 7},
        {"BitsAllocated": 13},
        {"drop": ["Rows"]},
        {"drop": ["PixelRepresentation"]},
    ],
)
def test_nothing_is_said_at_any_level(tmp_path, monkeypatch, caplog, capfd, elements):
    monkeypatch.setattr(pydicom.config, "debugging", True)
    path = save(tmp_path / "a.dcm", build(film(), **elements))
    capfd.readouterr()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="pydicom"):
        refused(path, ".")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_numbers_of_an_error_that_are_no_element_are_not_passed_on(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("patient (1234,5678) in (0028,0010)")

    monkeypatch.setattr(dicom_pixels, "pixel_array", fail)
    with pytest.raises(ImageReadError, match=re.escape("(ValueError)")):
        read(tmp_path, build(film()))

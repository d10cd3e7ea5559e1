"""Thousands of ways to damage a file end in an image or in the one error; see the benchmark."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.data.dicom_files import build, compress, film, lut, save, shared

FUZZ = Path(__file__).resolve().parents[2] / "benchmarks" / "dicom_fuzz.py"


def fuzz(folder, mutations):
    command = [sys.executable, FUZZ, folder, "--mutations", str(mutations), "--workers", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=FUZZ.parents[1])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in ended.stdout.splitlines()]


def test_mutations_of_written_files(tmp_path):
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        save(tmp_path / f"{syntax}.dcm", build(film(), syntax, VOILUTSequence=lut(range(4096))))
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        header = build(film(), WindowCenter=9, WindowWidth=900)
        compress(header, syntax)
        save(tmp_path / f"{syntax}.dcm", header)
    save(tmp_path / "float.dcm", build(film().astype(np.float32)))
    rows = {row[0]: row[1:] for row in fuzz(tmp_path, 200) if row}
    assert rows["untouched"][:3] == ["7", "7", "0"]
    tried, *outcomes = map(int, rows["all"])
    assert tried == 207
    assert sum(outcomes[:2]) == tried
    assert min(outcomes[:2]) > 40


@pytest.mark.slow
def test_mutations_of_real_files():
    fuzz(shared("manifest.csv").parent, 2000)

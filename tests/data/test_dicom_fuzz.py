"""Thousands of ways to damage a file end in an image or in the one error; see the benchmark."""

import importlib
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

from cxrssl.data import dicom_header
from cxrssl.data.image import ImageReadError, read_image
from tests.data.dicom_files import SECRET, build, compress, film, lut, save, shared, write

FUZZ = Path(__file__).resolve().parents[2] / "benchmarks" / "dicom_fuzz.py"


@pytest.fixture
def mutations(monkeypatch):
    """The mutations of the benchmark."""
    monkeypatch.syspath_prepend(FUZZ.parent)
    return importlib.import_module("dicom_mutations")


def test_mutations_of_written_files(mutations, tmp_path, monkeypatch):
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        save(tmp_path / f"{syntax}.dcm", build(film(), syntax, VOILUTSequence=lut(range(4096))))
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        header = build(film(shape=(41, 34)), WindowCenter=9, WindowWidth=900)
        compress(header, syntax)
        save(tmp_path / f"{syntax}.dcm", header)
    save(tmp_path / "float.dcm", build(film().astype(np.float32)))
    subjects = [mutations.take_apart(path) for path in sorted(tmp_path.glob("*.dcm"))]
    monkeypatch.setattr(dicom_header, "_MAX_READS", 2**13)  # as in the benchmark, but sooner
    outcomes, errors = [], []
    for kind, _, content in mutations.cases(subjects, 200, seed=0):
        try:
            pixels = read_image(write(tmp_path / "mutation", content)).pixels
        except ImageReadError as error:
            outcomes.append((kind, "refused"))
            errors.append(str(error))
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 2
            outcomes.append((kind, "read"))
    assert outcomes[: len(subjects)] == [("untouched", "read")] * len(subjects)
    assert len(outcomes) == len(subjects) + 200
    assert 100 < len(errors) < 180
    assert SECRET not in "".join(errors)


@pytest.mark.slow
def test_mutations_of_real_files():
    command = [sys.executable, FUZZ, shared("manifest.csv").parent, "--mutations", "2000"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=FUZZ.parents[1])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "| all | 2050 |" in ended.stdout

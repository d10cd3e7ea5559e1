"""How long it takes to index releases of 400,000 images.

    python benchmarks/release_scale.py [--images 400000]

The folders of NIH ChestX-ray14 and MIMIC-CXR-JPG are written with tables of that many rows and
empty image files, which indexing looks for and does not open. Printed are the seconds from the
class to the checked and split index.
"""

import argparse
import gzip
import tempfile
import time
from pathlib import Path

import numpy as np

from cxrssl.data import MIMICCXRJPG, NIHChestXray14, Release
from cxrssl.data.releases.mimic_tables import MIMIC_FINDINGS

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)


def write_nih(root: Path, images: int) -> None:
    """Write a release with four images a patient in twelve folders."""
    names = [f"{number // 4:08d}_{number % 4:03d}.png" for number in range(images)]
    rows = [
        f"{name},Effusion|Mass,{n % 4},{n // 4},57,F,PA,2500,2048,0.1,0.1"
        for n, name in enumerate(names)
    ]
    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([NIH_HEADER, *rows]))
    cut = images * 3 // 4 // 4 * 4
    (root / "train_val_list.txt").write_text("\n".join(names[:cut]))
    (root / "test_list.txt").write_text("\n".join(names[cut:]))
    for number, name in enumerate(names):
        folder = root / f"images_{number * 12 // images + 1:03d}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_mimic(root: Path, images: int) -> None:
    """Write a release with two images a study and two studies a patient."""
    rng = np.random.default_rng(0)
    metadata, splits, labels = [], [], []
    for number in range(images):
        subject, study = 10_000_000 + number // 4 * 20, 50_000_000 + number // 2
        dicom = "-".join(f"{part:08x}" for part in rng.integers(0, 2**32, 5))
        metadata.append(f"{dicom},{subject},{study},{'PA' if number % 2 else 'LATERAL'},21800101,0")
        splits.append(f"{dicom},{study},{subject},train")
        if number % 2:
            labels.append(
                f"{subject},{study}," + ",".join(["1.0", "0.0", "-1.0", ""] * 3 + ["", ""])
            )
        name = str(subject)
        folder = root / "files" / f"p{name[:2]}" / f"p{name}" / f"s{study}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{dicom}.jpg").touch()
    tables = {
        "metadata": "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime",
        "split": "dicom_id,study_id,subject_id,split",
        "chexpert": "subject_id,study_id," + ",".join(MIMIC_FINDINGS),
    }
    for (name, header), rows in zip(tables.items(), (metadata, splits, labels), strict=True):
        with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "wt", compresslevel=1) as file:
            file.write("\n".join([header, *rows]))


def main() -> None:
    """Write, index and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400_000)
    images = parser.parse_args().images
    releases: dict[type[Release], object] = {NIHChestXray14: write_nih, MIMICCXRJPG: write_mimic}
    for release, write in releases.items():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), images)  # type: ignore[operator]
            start = time.perf_counter()
            index = release(folder).index
            seconds = time.perf_counter() - start
            print(f"{release.title}: {len(index):,} images in {seconds:.1f} s")


if __name__ == "__main__":
    main()

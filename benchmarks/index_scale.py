"""How long an index of a million rows takes to start training, and what its workers hold.

    python benchmarks/index_scale.py [--rows 1000000] [--workers 4]

The index is synthetic: fourteen labels, patients, studies and paths, written as Parquet. Images are
not read: a worker looks the path up and returns one small picture, so that only the index is
measured. Memory is that of /proc/PID/smaps_rollup, in MB: what a worker holds alone (USS) and its
share of everything (PSS), after the first batch and after an epoch.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxrssl.data import CXRDataModule, ImageFiles
from cxrssl.views import PairViews

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)


class Looked(ImageFiles):
    """Paths that are looked up and stand for one picture."""

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        self.name(number)
        return PICTURE


class Scale(CXRDataModule):
    """A data module whose images need no files."""

    def make_source(self, rows: pd.DataFrame) -> Looked:
        """Return the looked up images."""
        return Looked(rows["path"])


def write_index(rows: int, file: Path) -> None:
    """Write an index of that many rows."""
    rng = np.random.default_rng(0)
    patient = rng.integers(0, rows // 4, rows)
    frame = pd.DataFrame(
        {
            "dataset": "synthetic",
            "path": [f"files/p{p:07d}/s{n:08d}/image-{n:08d}.jpg" for n, p in enumerate(patient)],
            "patient_id": patient.astype(str),
            "study_id": np.arange(rows).astype(str),
            "view_position": np.where(rng.random(rows) < 0.6, "PA", "AP"),
            "sex": np.where(rng.random(rows) < 0.5, "F", "M"),
            "age": rng.uniform(18, 90, rows),
        }
    )
    for finding in range(14):
        frame[f"finding {finding}"] = (rng.random(rows) < 0.1).astype(np.float32)
    frame.to_parquet(file, index=False)


def memory(pids: list[int]) -> tuple[float, float]:
    """Return what processes hold alone and their shares of everything, in MB."""
    alone = shared = 0.0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        for kind, kilobytes in (line.split()[:2] for line in lines):
            alone += int(kilobytes) / 1024 * kind.startswith("Private_")
            shared += int(kilobytes) / 1024 * (kind == "Pss:")
    return alone, shared


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "index.parquet"
        write_index(options.rows, file)
        start = time.perf_counter()
        views = PairViews(image_size=16)
        module = Scale(str(file), views=views, batch_size=256, num_workers=options.workers, seed=0)
        module.setup("fit")
        print(f"index read, checked and split: {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        loader = module.train_dataloader()
        batches = iter(loader)
        next(batches)
        print(f"first batch: {time.perf_counter() - start:.1f} s")
        pids = [worker.pid for worker in batches._workers]  # type: ignore[attr-defined]
        early = memory(pids)
        images = 256 * sum(1 for _ in itertools.islice(batches, len(loader) - 8))
        late = memory(pids)
        print(f"{len(pids)} workers, first batch: USS {early[0]:.0f}, PSS {early[1]:.0f} MB")
        print(f"{len(pids)} workers, {images:,} images: USS {late[0]:.0f}, PSS {late[1]:.0f} MB")


if __name__ == "__main__":
    main()

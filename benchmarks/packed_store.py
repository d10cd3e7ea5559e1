"""Reading and training from a packed store over decoding the files every epoch.

    python benchmarks/packed_store.py [--images FOLDER --count 400 --rounds 5]

Images are radiographs of a folder, or drawings of the phantom without one, written as files such as
releases have: PNG of 512 and 1024 pixels, 12-bit DICOM of 1024. Two tables: reading an image at
random from each kind of store at 512 pixels; reading, and making the batches of a training epoch,
from the files and from our store. The methods take turns, on one thread, and processor time is
counted, so that other programs matter little. All files are in the page cache.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from cxrssl.data import CXRDataModule, read_image
from cxrssl.data.phantom import Phantom
from cxrssl.packing.options import PackOptions
from cxrssl.packing.pack import pack
from cxrssl.views import MultiCrop, PairViews, Views

SIDE = 512
Read = Callable[[int], object]
Pass = Callable[[], object]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        images = radiographs(arguments.images, arguments.count)
        kinds = write_files(Path(folder), images)
        print(f"{len(images)} images of {SIDE} pixels\n\n| store | size / raw | us an image | /s |")
        print("|---|---|---|---|")
        stores = {**arrays(Path(folder), images), **packed(Path(folder), kinds["PNG 512"])}
        reads = {name: shuffled(read, len(images)) for name, (read, _) in stores.items()}
        for name, seconds in in_turns(reads, len(images), arguments.rounds).items():
            share = stores[name][1] / (len(images) * SIDE**2)
            print(f"| {name} | {share:.2f} | {1e6 * seconds:.0f} | {1 / seconds:.0f} |")
        tables(Path(folder), kinds, arguments.rounds)


def radiographs(folder: str | None, count: int) -> list[NDArray[np.uint8]]:
    """Return images of 512 x 512."""
    if folder is None:
        phantom = Phantom(SIDE, 0)
        return [phantom.pixels(number) for number in range(count)]
    files = sorted(file for file in Path(folder).iterdir() if file.is_file())[:count]
    return [cv2.resize(read_image(file).pixels, (SIDE, SIDE)) for file in files]


def write_files(folder: Path, images: list[NDArray[np.uint8]]) -> dict[str, Path]:
    """Write the images as files; return the folders by kind."""
    kinds = {name: folder / name for name in ("PNG 512", "PNG 1024", "DICOM 1024")}
    for kind in kinds.values():
        kind.mkdir()
    rng = np.random.default_rng(0)
    for number, image in enumerate(images):
        large = cv2.resize(image, (1024, 1024), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(kinds["PNG 512"] / f"{number:04d}.png"), image)
        # Some noise, without which twice as many pixels would hold no more than before.
        noisy = cv2.add(large, rng.integers(0, 3, large.shape).astype(np.uint8))
        cv2.imwrite(str(kinds["PNG 1024"] / f"{number:04d}.png"), noisy)
        write_dicom(kinds["DICOM 1024"] / f"{number:04d}.dcm", noisy.astype(np.uint16) * 16)
    return kinds


def write_dicom(file: Path, pixels: NDArray[np.uint16]) -> None:
    """Write twelve-bit grey values without compression."""
    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data.file_meta = meta
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.PhotometricInterpretation = "MONOCHROME2"
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = pixels.tobytes()
    data.save_as(file, enforce_file_format=True)


def arrays(folder: Path, images: list[NDArray[np.uint8]]) -> dict[str, tuple[Read, int]]:
    """Return stores other than ours, without checksums: how an image is read, and their bytes."""
    np.save(folder / "a.npy", np.stack(images))
    array = np.load(folder / "a.npy", mmap_mode="r")
    coded = [np.ascontiguousarray(cv2.imencode(".png", image)[1]) for image in images]
    ends = np.cumsum([0, *(len(each) for each in coded)])
    (folder / "blob").write_bytes(b"".join(each.tobytes() for each in coded))
    blob = np.memmap(folder / "blob", mode="r")
    codec = pa.Codec("zstd")
    zstd = [codec.compress(image.tobytes()) for image in images]
    return {
        ".npy, mapped": (lambda n: np.array(array[n]), array.nbytes),
        "PNG blob and offsets": (
            lambda n: cv2.imdecode(blob[ends[n] : ends[n + 1]], cv2.IMREAD_UNCHANGED),
            int(ends[-1]),
        ),
        "zstd blob in memory": (
            lambda n: np.frombuffer(codec.decompress(zstd[n], SIDE**2), np.uint8).copy(),
            sum(len(each) for each in zstd),
        ),
    }


def packed(folder: Path, files: Path) -> dict[str, tuple[Read, int]]:
    """Return our store, raw and compressed."""
    stores: dict[str, tuple[Read, int]] = {}
    for compression in ("none", "lz4", "zstd"):
        options = PackOptions(compression=compression)
        made = pack(CXRDataModule(str(files)), folder / f"arrow {compression}", options)
        data = CXRDataModule(made.folder)
        stores[f"ours: Arrow, {compression}"] = (
            data.make_source(data.index).__getitem__,
            made.bytes,
        )
    return stores


def in_turns(passes: dict[str, Pass], count: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of an image for passes over all images."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, once in passes.items():
            started = time.process_time()
            once()
            seconds[name].append((time.process_time() - started) / count)
    return {name: statistics.median(each) for name, each in seconds.items()}


def tables(folder: Path, kinds: dict[str, Path], rounds: int) -> None:
    """Print reading and training from files against the store that they were packed into."""
    print(f"\n| what | from files, images/s per core | from a store of {SIDE} | ratio of times |")
    print("|---|---|---|---|")
    for kind, files in kinds.items():
        out = folder / f"packed {kind}"
        count = pack(CXRDataModule(str(files)), out, PackOptions(size=SIDE)).images
        both = str(files), str(out)
        rows = {
            "reading": reading(*both, count),
            "epoch, MultiCrop": epoch(*both, MultiCrop()),
            "epoch, PairViews": epoch(*both, PairViews()),
        }
        for what, passes in rows.items():
            seconds = in_turns(passes, count, rounds)
            ours, theirs = seconds["store"], seconds["files"]
            row = f"| {kind}, {what} | {1 / theirs:.0f} | {1 / ours:.0f} | {ours / theirs:.3f} |"
            print(row, flush=True)


def reading(files: str, out: str, count: int) -> dict[str, Pass]:
    """Return what reads all images from files and from a store."""
    both: dict[str, Pass] = {}
    for name, source in (("files", files), ("store", out)):
        data = CXRDataModule(source)
        both[name] = shuffled(data.make_source(data.index).__getitem__, count)
    return both


def shuffled(read: Read, count: int) -> Pass:
    """Return what reads all images once, in random order."""
    order = np.random.default_rng(0).permutation(count).tolist()

    def once() -> None:
        for number in order:
            read(number)

    return once


def epoch(files: str, out: str, views: Views) -> dict[str, Pass]:
    """Return what makes all batches of an epoch from files and from a store."""
    both: dict[str, Pass] = {}
    for name, source in (("files", files), ("store", out)):
        data = CXRDataModule(
            source, views=views, batch_size=50, num_workers=0, split=(1.0, 0.0, 0.0)
        )
        both[name] = lambda data=data: sum(1 for _ in data.train_dataloader())
    return both


if __name__ == "__main__":
    main()

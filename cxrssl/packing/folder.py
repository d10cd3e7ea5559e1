"""The folder of a store while it is packed: what is finished, and what makes it complete."""

import json
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from cxrssl.data.packed_folder import INDEX, MANIFEST, TABLE, shard_name
from cxrssl.errors import InputError
from cxrssl.packing.shard import TABLE_COLUMNS, part_of, write_table

__all__ = ["StoreFolder"]

_FAILURES = "failures.csv"


class StoreFolder:
    """A store that is being packed.

    Args:
        folder: Where it is to be; made if need be.
        settings: Plain data that decides what is in it.

    Raises:
        InputError: If something else is there, or a store with other settings.
        OSError: If the folder cannot be made.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._checksum: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        manifest = folder / MANIFEST
        if manifest.is_file():
            known = json.loads(manifest.read_text())
            self._refuse_other(known["settings"])
            self._checksum = known.get("checksums", {}).get(TABLE)
        elif any(folder.iterdir()):
            raise InputError(f"{folder} holds something else: give a folder that is empty or new")
        else:
            self._write_manifest(complete=False)

    def finished(self, *, retry: bool) -> pd.DataFrame:
        """Return the table of finished shards.

        Args:
            retry: Whether those with images that could not be read are not finished.
        """
        files = [self.folder / TABLE, *self._parts()]
        tables = [table for file in files if (table := self._read(file)) is not None]
        if not tables:
            return pd.DataFrame(columns=list(TABLE_COLUMNS))
        table = pd.concat(tables, ignore_index=True)
        # A run that was killed when they had become one has left both.
        table = table.drop_duplicates(["shard", "offset"])
        shards = table.groupby("shard", sort=False)
        again = {int(rows["shard"].iloc[0]) for _, rows in shards if not self._there(rows)}
        if retry:
            again |= set(table["shard"][table["error"].notna()])
        return table[~table["shard"].isin(again)]

    def start(self, finished: pd.DataFrame) -> None:
        """Note that all but the finished shards are going to be written."""
        self._write_manifest(complete=False)
        # Before one of them is replaced, nothing may say any more where its images were.
        write_table(finished, self.folder / TABLE)
        self._clear()

    def finish(self, table: pd.DataFrame, index: pd.DataFrame) -> None:
        """Make the store complete.

        Args:
            table: Rows of all shards.
            index: Rows of the images that could be read.
        """
        failures = table.loc[table["error"].notna(), ["path", "error"]]
        failures.to_csv(part := part_of(self.folder / _FAILURES), index=False)
        part.replace(self.folder / _FAILURES)
        part = part_of(self.folder / INDEX)
        index.to_parquet(part, index=False)
        part.replace(self.folder / INDEX)
        write_table(table, self.folder / TABLE)
        self._write_manifest(complete=True)
        self._clear()

    def _refuse_other(self, settings: Mapping[str, Any]) -> None:
        names = [*self.settings, *(name for name in settings if name not in self.settings)]
        for name in names:
            there, here = settings.get(name), self.settings.get(name)
            if there != here:
                raise InputError(
                    f"{self.folder} was packed otherwise ({name} is {there} there and {here} "
                    "now): repeat its settings, or give another folder"
                )

    def _read(self, file: Path) -> pd.DataFrame | None:
        """Return a table, None where it is not there or damaged: its shards are packed again."""
        if not file.is_file():
            return None
        data = file.read_bytes()
        if file.name == TABLE and self._checksum not in (None, zlib.crc32(data)):
            return None
        try:
            return pd.read_parquet(BytesIO(data))
        except (OSError, ValueError):
            return None

    def _there(self, rows: pd.DataFrame) -> bool:
        """Return whether the shard of some rows is as long as they say."""
        file = self.folder / shard_name(int(rows["shard"].iloc[0]))
        return file.is_file() and file.stat().st_size >= (rows["offset"] + rows["length"]).max()

    def _write_manifest(self, *, complete: bool) -> None:
        part = part_of(self.folder / MANIFEST)
        manifest: dict[str, Any] = {"complete": complete, "settings": self.settings}
        if complete:
            files = {name: self.folder / name for name in (INDEX, TABLE)}
            manifest["checksums"] = {
                name: zlib.crc32(file.read_bytes()) for name, file in files.items()
            }
        text = json.dumps(manifest, indent=1)
        part.write_text(text + "\n")
        part.replace(self.folder / MANIFEST)

    def _parts(self) -> Sequence[Path]:
        """Return the tables of shards that wait to become one."""
        return sorted(self.folder.glob("images-*.parquet"))

    def _clear(self) -> None:
        """Remove tables that have become one, and what killed runs have left."""
        for file in (*self._parts(), *self.folder.glob(".*.part")):
            file.unlink(missing_ok=True)

"""Reading ``.xlsx`` tables as text."""

import zipfile
from pathlib import Path

import pandas as pd

from cxrssl.errors import InputError

__all__ = ["read_spreadsheet"]


def read_spreadsheet(file: Path) -> pd.DataFrame:
    """Return the first sheet of an ``.xlsx`` file as text, empty where a cell is.

    The first row names the columns.

    Raises:
        InputError: If the file is no such table, or openpyxl is not installed.
    """
    try:
        table = pd.read_excel(file, dtype=str, keep_default_na=False, engine="openpyxl")
    except ImportError:
        raise InputError(f"{file} needs openpyxl to be read: pip install 'cxrssl[xlsx]'") from None
    except (OSError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise InputError(f"{file} cannot be read as an .xlsx table: {error}") from error
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    return table.fillna("")

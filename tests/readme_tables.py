"""The tables of the README that are made of the code: ``python -m tests.readme_tables``."""

import inspect
import re
from pathlib import Path

import cxrssl.heads
import cxrssl.objectives
import cxrssl.tasks
from cxrssl.data.releases.catalogue import catalogue_table
from cxrssl.heads import ClassificationHead, SegmentationDecoder
from cxrssl.objectives import Objective
from cxrssl.tasks import Task

README = Path(__file__).resolve().parents[1] / "README.md"
KINDS = {
    "objective": (cxrssl.objectives, Objective),
    "task": (cxrssl.tasks, Task),
    "head of classification": (cxrssl.heads, ClassificationHead),
    "decoder of segmentation": (cxrssl.heads, SegmentationDecoder),
}


def class_table():
    """Return a Markdown table of objectives, tasks and heads with the first line on each."""
    rows = [("kind", "class", "what it is"), ("---",) * 3]
    for kind, (room, parent) in KINDS.items():
        for name in sorted(room.__all__, key=str.lower):
            found = getattr(room, name)
            if isinstance(found, type) and issubclass(found, parent) and found is not parent:
                first = inspect.getdoc(found).split("\n\n")[0].replace("\n", " ")
                rows.append((kind, f"`{name}`", re.sub(r":\w+:`([\w.]+)`", r"`\1`", first)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


TABLES = {"classes": class_table, "datasets": catalogue_table}


def table_of(name):
    """Return a table as it stands in the README."""
    rest = README.read_text().partition(f"<!-- table: {name} -->\n")[2]
    return rest.partition("\n<!-- end of table -->")[0]


def main():
    """Write the tables into the README."""
    text = README.read_text()
    for name, make in TABLES.items():
        before, _, rest = text.partition(f"<!-- table: {name} -->\n")
        _, _, after = rest.partition("\n<!-- end of table -->")
        text = f"{before}<!-- table: {name} -->\n{make()}\n<!-- end of table -->{after}"
    README.write_text(text)


if __name__ == "__main__":
    main()

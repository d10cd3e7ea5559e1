"""The rooms of the package import only what their place allows."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cxrssl"
# Room: other rooms of the package it may import, and third-party packages it must not.
ALLOWED = {
    "losses": set(),
    "backbones": {"errors"},
    "heads": {"backbones", "errors"},
    "views": {"errors"},
    "objectives": {"losses", "backbones", "heads", "views", "errors", "schedules"},
    "data": {"views", "errors"},
    "tasks": {
        "losses",
        "backbones",
        "heads",
        "views",
        "objectives",
        "analysis",
        "errors",
        "schedules",
        "gathering",
    },
    "analysis": {"backbones", "views", "errors"},
    "checking": {"data", "errors", "exit_codes", "arguments"},
    "embedding": {
        "backbones",
        "data",
        "evaluation",
        "tasks",
        "views",
        "errors",
        "exit_codes",
        "arguments",
    },
    "exporting": {"backbones", "views", "errors", "exit_codes", "arguments"},
    "evaluation": {
        "analysis",
        "backbones",
        "data",
        "views",
        "tasks",
        "errors",
        "exit_codes",
        "arguments",
    },
    "indexing": {"data", "errors", "exit_codes", "arguments"},
    "packing": {"data", "views", "errors", "exit_codes", "arguments"},
    "callbacks": {"analysis", "objectives", "tasks", "errors", "gathering", "run_files"},
    "run_files": {"backbones", "errors"},
    "reporting": {
        "analysis",
        "backbones",
        "data",
        "views",
        "objectives",
        "tasks",
        "evaluation",
        "errors",
        "exit_codes",
        "arguments",
    },
}
WITHOUT_LIGHTNING = {"losses", "backbones", "heads", "views", "analysis"}


def imports(path):
    """Return the dotted names a module imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("room", ALLOWED)
def test_direction_of_imports(room):
    for path in (PACKAGE / room).rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "cxrssl" and len(parts) > 1:
                assert parts[1] in ALLOWED[room] | {room}, f"{path} imports {name}"
            if room in WITHOUT_LIGHTNING:
                assert parts[0] not in ("lightning", "pytorch_lightning"), f"{path} imports {name}"


def test_the_root_and_the_entry_point_import_nothing_heavy():
    for path in (PACKAGE / "__init__.py", PACKAGE / "errors.py", PACKAGE / "schedules.py"):
        allowed = {"cxrssl", "dataclasses", "math", "typing"}
        heavy = {name.split(".")[0] for name in imports(path)} - allowed
        assert heavy == set(), path
    tree = ast.parse((PACKAGE / "__main__.py").read_text())
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [alias.name for node in top for alias in node.names] == ["sys"]

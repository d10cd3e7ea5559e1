"""All releases there are, as a table."""

import inspect

from cxrssl.data.releases.release import Release

__all__ = ["all_releases", "catalogue_table"]

_HEAD = ("class", "dataset", "images", "findings", "also", "taken care of, and tested")
_LISTED = 5


def all_releases() -> list[type[Release]]:
    """Return the classes of all releases of this package, by name."""
    found: list[type[Release]] = _below(Release)  # type: ignore[type-abstract]
    found = [each for each in found if each.__module__.startswith("cxrssl.")]
    return sorted(found, key=lambda each: each.__name__.lower())


def _below(parent: type[Release]) -> list[type[Release]]:
    """Return a class, if it can be built, and those below it."""
    children: list[type[Release]] = parent.__subclasses__()
    below = [each for child in children for each in _below(child)]
    whole = not inspect.isabstract(parent) and not parent.__name__.startswith("_")
    return [*below, parent] if whole else below


def catalogue_table() -> str:
    """Return a Markdown table of all releases, as the README has it."""
    rows = [_HEAD, ("---",) * len(_HEAD), *(_row(each) for each in all_releases())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(release: type[Release]) -> tuple[str, ...]:
    images = release.counts.get("images")
    structures = release.structures_of_masks
    masks = f"{len(structures)} structures" if len(structures) > _LISTED else ", ".join(structures)
    also = [*release.also, *([f"masks ({masks})"] if structures else [])]
    return (
        f"`{release.__name__}`",
        release.title,
        f"{images:,}" if images else "",
        str(len(release.findings) or ""),
        ", ".join(also),
        "; ".join(release.traps),
    )

"""What became of each weight of a file, and the checks that all backbones make of it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from cxrssl.errors import InputError

__all__ = [
    "LoadReport",
    "check_fit",
    "first_few",
    "fold_channels",
    "fresh_gates",
    "starting_with",
]


@dataclass
class LoadReport:
    """What happened to each key, under the names of timm in a ViT and of ``state_dict`` elsewhere.

    Attributes:
        source: The file.
        format: The recognised layout.
        matched: Keys copied as they are.
        resized: Keys that were changed to fit: positions of another grid, folded colours, patches
            of another size.
        missing: Keys of the backbone that the file lacks and that were allowed to keep their start.
        left_over: Keys of the file that have no place in the encoder (heads, mask token).
        assumed: What the file does not say, and what was taken for it, as short sentences.
    """

    source: str
    format: str
    matched: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = [f"{len(self.matched)} weights matched"]
        for word, keys in (
            ("resized", self.resized),
            ("missing", self.missing),
            ("left over", self.left_over),
        ):
            if keys:
                counts.append(f"{word}: {', '.join(first_few(keys))}")
        if self.assumed:
            counts.append(f"not in the file: {', '.join(self.assumed)}")
        return f"{self.source} ({self.format}): {'; '.join(counts)}"


def check_fit(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    report: LoadReport,
    allow_missing: Collection[str],
    advice: Sequence[str] = (),
) -> None:
    """Refuse weights that do not fit, else note in the report what matches and what is missing.

    Args:
        found: Weights of the file under the backbone's names.
        own: Weights of the backbone.
        report: Filled in.
        allow_missing: Names that may be missing.
        advice: Sentences that are put before what is said of shapes.

    Raises:
        InputError: If names or shapes differ.
    """
    unknown = [key for key in found if key not in own]
    missing = [key for key in own if key not in found]
    shapes = [
        f"{key} is {tuple(found[key].shape)} there and {tuple(own[key].shape)} here"
        for key in own
        if key in found and found[key].shape != own[key].shape
    ]
    refused = [key for key in missing if key not in allow_missing]
    complaints = []
    if shapes:
        complaints.append("; ".join(first_few([*advice, *shapes])))
    if refused:
        complaints.append("missing there: " + ", ".join(first_few(refused)))
    if unknown:
        complaints.append("unknown here: " + ", ".join(first_few(unknown)))
    if complaints:
        raise InputError(
            f"{report.source} ({report.format}) does not fit the backbone: {'. '.join(complaints)}"
        )
    report.missing = [key for key in missing if key in allow_missing]
    report.matched = [key for key in own if key in found and key not in report.resized]


def fresh_gates(
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    report: LoadReport,
    is_gate: Callable[[str], bool],
) -> set[str]:
    """Return the names of gates that may keep their start, since the file has no gates at all.

    Raises:
        InputError: If the file has gates and the backbone has none: what follows a gate was trained
            on what the gate leaves.
    """
    here = {key for key in own if is_gate(key)}
    there = [key for key in found if is_gate(key)]
    if there and not here:
        raise InputError(
            f"{report.source} ({report.format}) holds gates ({', '.join(first_few(there))}): build "
            "the backbone with gates after the same levels; drop_gates() takes them out afterwards"
        )
    return set() if there else here


def fold_channels(kernel: Tensor, wanted: int) -> Tensor:
    """Return a first kernel (D, C, h, w) for another number of channels, where one of both is 1.

    Summing colours equals feeding the grey image to each; dividing undoes it.
    """
    if kernel.shape[1] == wanted:
        return kernel
    if wanted == 1:
        return kernel.sum(1, keepdim=True)
    if kernel.shape[1] == 1:
        return kernel.expand(-1, wanted, -1, -1) / wanted
    return kernel


def starting_with(prefix: str, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, under their whole names.

    Raises:
        InputError: If there are none.
    """
    chosen = {key: value for key, value in state.items() if key.startswith(prefix)}
    if not chosen:
        modules = dict.fromkeys(key.partition(".")[0] for key in state)
        raise InputError(
            f"{source} holds no weights that start with {prefix!r}; it holds those of "
            f"{', '.join(first_few(list(modules)))}"
        )
    return chosen


def first_few(items: Sequence[str], count: int = 4) -> list[str]:
    """Return the first items, and how many more there are, as text."""
    rest = len(items) - count
    return [*items[:count], f"and {rest} more"] if rest > 0 else list(items)

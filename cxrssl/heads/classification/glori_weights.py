"""Published weights of GLoRI."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cxrssl.backbones.weight_files import read_weights
from cxrssl.errors import InputError
from cxrssl.heads.classification.glori import GLoRI

__all__ = ["CXRLT_FINDINGS", "load_glori_weights"]

CXRLT_FINDINGS = (
    "Adenopathy",
    "Atelectasis",
    "Azygos Lobe",
    "Calcification of the Aorta",
    "Cardiomegaly",
    "Clavicle Fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged Cardiomediastinum",
    "Fibrosis",
    "Fissure",
    "Fracture",
    "Granuloma",
    "Hernia",
    "Hydropneumothorax",
    "Infarction",
    "Infiltration",
    "Kyphosis",
    "Lobar Atelectasis",
    "Lung Lesion",
    "Lung Opacity",
    "Mass",
    "Nodule",
    "Normal",
    "Pleural Effusion",
    "Pleural Other",
    "Pleural Thickening",
    "Pneumomediastinum",
    "Pneumonia",
    "Pneumoperitoneum",
    "Pneumothorax",
    "Pulmonary Embolism",
    "Pulmonary Hypertension",
    "Rib Fracture",
    "Round(ed) Atelectasis",
    "Subcutaneous Emphysema",
    "Support Devices",
    "Tortuous Aorta",
    "Tuberculosis",
)
"""The 40 findings of CXR-LT 2024, in the order of the published weights."""

_HEADS = 8  # the attention heads of every published file, whose shapes do not show them

# Our name of each tensor but those of q, k and v, which are one in the files.
_NAMES = {
    "queries": "query_embed.weight",
    "embed.weight": "embed_standart.weight",
    "embed.bias": "embed_standart.bias",
    "norm_queries.weight": "layers.0.norm1.weight",
    "norm_queries.bias": "layers.0.norm1.bias",
    "attend.proj.weight": "layers.0.multihead_attn.out_proj.weight",
    "attend.proj.bias": "layers.0.multihead_attn.out_proj.bias",
    "norm_attention.weight": "layers.0.norm2.weight",
    "norm_attention.bias": "layers.0.norm2.bias",
    "mlp.0.weight": "layers.0.linear1.weight",
    "mlp.0.bias": "layers.0.linear1.bias",
    "mlp.3.weight": "layers.0.linear2.weight",
    "mlp.3.bias": "layers.0.linear2.bias",
    "norm_mlp.weight": "layers.0.norm3.weight",
    "norm_mlp.bias": "layers.0.norm3.bias",
    "classifier.weight": "duplicate_pooling",
    "classifier.bias": "duplicate_pooling_bias",
}
_PER_FINDING = ("queries", "classifier.weight", "classifier.bias")


def load_glori_weights(
    head: GLoRI,
    path: str | Path,
    *,
    which: str | None = None,
    findings: Sequence[str] | None = None,
) -> None:
    """Load a file of CheXFound's own training, such as its ``glori.pth``, into a head.

    The released file is of a head of width 768 on 4 blocks of width 1024 for the 40
    :data:`CXRLT_FINDINGS`, without the class tokens: ``GLoRI(dims, 40, class_skip=False)``. Since
    findings do not see each other, any choice of them gives the logits of the whole.

    Args:
        head: Where the weights go; all other options as the file's head had them.
        path: The file.
        which: Part of the name of the wanted head, e.g. ``lr=0_0001``, where the file has several,
            trained with other learning rates.
        findings: Names of the head's findings in order, of which the rows are taken from a file of
            the :data:`CXRLT_FINDINGS`. All rows in the file's order if left out.

    Raises:
        InputError: If the file is unreadable, has no such head, or that is another than the given.
    """
    if head.attend.heads != _HEADS:
        raise InputError(f"published GLoRI has {_HEADS} attention heads, got {head.attend.heads}")
    tensors, _ = read_weights(path)
    state = _translated(_pick(tensors, which, path), path)
    if findings is not None:
        rows = _rows(findings, len(state["queries"]), path)
        state |= {name: state[name][rows] for name in _PER_FINDING}
    _check(head, state, path)
    head.load_state_dict(state)


def _pick(tensors: Mapping[str, Tensor], which: str | None, path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of the one head that is wanted."""
    heads: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if found := re.fullmatch(r"(?:(.*)\.)?decoder\.(.+)", key):
            heads.setdefault(found[1] or "decoder", {})[found[2]] = tensor
    if not heads:
        raise InputError(f"{path} holds no head of GLoRI, whose names have 'decoder.' in them")
    wanted = [name for name in heads if which is None or which in name]
    if len(wanted) != 1:
        asked = "" if which is None else f" with {which!r} in their name"
        raise InputError(
            f"{path} holds {len(wanted)} heads{asked}: set which so that it is in one name of "
            f"{', '.join(sorted(heads))}"
        )
    return heads[wanted[0]]


def _translated(official: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Return the tensors by our names."""
    packed = [f"layers.0.multihead_attn.in_proj_{kind}" for kind in ("weight", "bias")]
    known = {*_NAMES.values(), *packed}
    if set(official) != known:
        raise InputError(
            f"{path} holds another head than GLoRI: missing {sorted(known - set(official))}, "
            f"unknown {sorted(set(official) - known)}"
        )
    state = {ours: official[theirs] for ours, theirs in _NAMES.items()}
    state["classifier.weight"] = state["classifier.weight"].flatten(1)  # (F, width, 1) there
    for kind, name in zip(("weight", "bias"), packed, strict=True):
        q, k, v = official[name].chunk(3)
        state[f"attend.q.{kind}"], state[f"attend.kv.{kind}"] = q, torch.cat([k, v])
    return state


def _rows(findings: Sequence[str], n_rows: int, path: str | Path) -> list[int]:
    """Return the rows of findings in a file."""
    if n_rows != len(CXRLT_FINDINGS):
        raise InputError(
            f"{path} is of {n_rows} findings and not of the {len(CXRLT_FINDINGS)} with known "
            "names: leave findings out"
        )
    if unknown := [name for name in findings if name not in CXRLT_FINDINGS]:
        raise InputError(f"{path} has no {unknown}, only {', '.join(CXRLT_FINDINGS)}")
    return [CXRLT_FINDINGS.index(name) for name in findings]


def _check(head: GLoRI, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse tensors of another head, in the words of its options."""
    expected = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    if extra := sorted(set(expected) - set(state)):
        raise InputError(
            f"{path} knows neither temperature nor pyramid, which the head has ({extra[0]}, ...)"
        )
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise InputError(
                f"{path} has {name} of shape {tuple(state[name].shape)}, the head of {shape}: "
                "n_findings, blocks, width, hidden and class_skip must be the file's"
            )

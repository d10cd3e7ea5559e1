"""GLoRI's golden head, by way of a file in the official format."""

import torch

from cxrssl.heads.classification import GLoRI, load_glori_weights
from tests.golden import subset

PREFIX = "classifiers_dict.linear:blocks=4:avgpool=False:lr=0_0001000000"


def official_tensors(generator, width=32, merged=48, findings=5, hidden=24, shared=0):
    """Return tensors of a head without its prefix, of the names and shapes of official files."""
    attention, layer = "layers.0.multihead_attn", "layers.0"
    shapes = {
        "embed_standart.weight": (width, merged),
        "embed_standart.bias": (width,),
        "query_embed.weight": (findings, width),
        f"{attention}.in_proj_weight": (3 * width, width),
        f"{attention}.in_proj_bias": (3 * width,),
        f"{attention}.out_proj.weight": (width, width),
        f"{attention}.out_proj.bias": (width,),
        f"{layer}.linear1.weight": (hidden, width),
        f"{layer}.linear1.bias": (hidden,),
        f"{layer}.linear2.weight": (width, hidden),
        f"{layer}.linear2.bias": (width,),
        **{f"{layer}.norm{i}.{kind}": (width,) for i in (1, 2, 3) for kind in ("weight", "bias")},
        "duplicate_pooling": (findings, shared + width, 1),
        "duplicate_pooling_bias": (findings,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def save_official(path, heads):
    """Write heads, by their prefixes, as the official training does."""
    model = {f"{p}.decoder.{name}": t for p, head in heads.items() for name, t in head.items()}
    torch.save({"model": model, "optimizer": {"state": {}}, "iteration": 99}, path)
    return path


def golden_head(golden, folder, case):
    head = GLoRI([12] * 4, 5, width=32, class_skip=case == "catcls").eval()
    tensors = subset(golden, "sd/decoder.")
    load_glori_weights(head, save_official(folder / "glori.pth", {PREFIX: tensors}))
    return head


def golden_gradients(golden, folder, case):
    """Return the golden gradients by our names; those of the frozen queries are none."""
    holder = GLoRI([12] * 4, 5, width=32, class_skip=case == "catcls")
    tensors = subset(golden, "grad/decoder.") | {"query_embed.weight": torch.zeros(5, 32)}
    load_glori_weights(holder, save_official(folder / "gradients.pth", {PREFIX: tensors}))
    return dict(holder.named_parameters())

"""Small ViTs, and weights under the names and in the files of official code."""

import argparse

import torch
from torch import Tensor

from cxrssl.backbones import ConvNet, ViT


def tiny_vit(**options) -> ViT:
    """Return a ViT of the golden files' size: width 64, two blocks, two heads, patch 14."""
    defaults = {
        "name": "vit_tiny",
        "img_size": 70,
        "patch_size": 14,
        "in_chans": 3,
        "width": 64,
        "depth": 2,
        "heads": 2,
        "layer_scale": 1e-5,
    }
    return ViT(**(defaults | options))


def save_official(state: dict[str, Tensor], path) -> str:
    """Write a state dict as the official releases do and return the path."""
    torch.save(state, path)
    return str(path)


def official_state(vit: ViT, chunks: int = 0) -> dict[str, torch.Tensor]:
    """Return a ViT's weights under the names of the official code, in block chunks if wanted."""
    state = {"mask_token": torch.randn(1, vit.embed_dim)}
    for key, value in vit.vit.state_dict().items():
        name = key.replace("reg_token", "register_tokens")
        if chunks and name.startswith("blocks."):
            number = int(name.split(".")[1])
            name = f"blocks.{number * chunks // len(vit.vit.blocks)}.{name[len('blocks.') :]}"
        state[name] = value.clone()
    return state


def micro_vit(**options) -> ViT:
    """Return a ViT of the golden files of CheXWorld and I-JEPA: 4 x 4 patches, width 32."""
    defaults = {
        "name": "vit_tiny",
        "img_size": 64,
        "in_chans": 3,
        "class_token": False,
        "position": "sincos",
        "interpolation": "plain",
        "width": 32,
        "depth": 2,
        "heads": 4,
    }
    return ViT(**(defaults | options))


def jepa_shapes(
    *,
    grid: int = 4,
    patch: int = 16,
    width: int = 32,
    depth: int = 2,
    predictor_width: int = 24,
    predictor_depth: int = 2,
    actions: int = 5,
) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a CheXWorld checkpoint; of I-JEPA's without actions."""
    shapes: dict[str, tuple[int, ...]] = {}
    for encoder in ("encoder", "target_encoder"):
        shapes[f"{encoder}.pos_embed"] = (1, grid * grid, width)
        shapes[f"{encoder}.patch_embed.proj.weight"] = (width, 3, patch, patch)
        shapes[f"{encoder}.patch_embed.proj.bias"] = (width,)
        for block in range(depth):
            shapes |= _block_shapes(f"{encoder}.blocks.{block}", width)
        shapes |= _norm_shapes(f"{encoder}.norm", width)
    shapes["predictor.mask_token"] = (1, 1, predictor_width)
    shapes["predictor.predictor_pos_embed"] = (1, grid * grid, predictor_width)
    shapes |= _linear_shapes("predictor.predictor_embed", width, predictor_width)
    for block in range(predictor_depth):
        shapes |= _block_shapes(f"predictor.predictor_blocks.{block}", predictor_width)
    shapes |= _norm_shapes("predictor.predictor_norm", predictor_width)
    shapes |= _linear_shapes("predictor.predictor_proj", predictor_width, width)
    if actions:
        policy = "predictor.policy_net"
        shapes |= _linear_shapes(f"{policy}.0", predictor_width + actions, predictor_width)
        shapes |= _linear_shapes(f"{policy}.2", predictor_width, predictor_width)
        shapes |= _linear_shapes(f"{policy}.4", predictor_width, predictor_width)
    return shapes


def chexworld_state(seed: int = 0, **sizes) -> dict[str, Tensor]:
    """Return random weights under CheXWorld's names; sizes as in :func:`jepa_shapes`."""
    rng = torch.Generator().manual_seed(seed)
    shapes = jepa_shapes(**sizes)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def ijepa_state(seed: int = 0, **sizes) -> dict[str, Tensor]:
    """Return random weights under I-JEPA's names, below the name of their state dict."""
    return chexworld_state(seed, actions=0, **sizes)


def save_chexworld(path, state: dict[str, Tensor]) -> str:
    """Write a checkpoint as CheXWorld released it and return the path."""
    arguments = argparse.Namespace(model_name="vit_base", lr=2e-4, betas=(0.9, 0.999), resume=None)
    torch.save({"model": state, "epoch": 299, "args": arguments}, path)
    return str(path)


def save_ijepa(path, state: dict[str, Tensor]) -> str:
    """Write a checkpoint as I-JEPA's training does and return the path.

    Args:
        path: Where to.
        state: Names begin with ``encoder.``, ``predictor.`` or ``target_encoder.``.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        module, _, rest = name.partition(".")
        modules.setdefault(module, {})[f"module.{rest}"] = value
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}
    optimizer = {"state": moments, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    numbers = {"epoch": 300, "loss": 0.1, "batch_size": 128, "world_size": 16, "lr": 1e-3}
    torch.save({**modules, "opt": optimizer, "scaler": {"scale": 65536.0}, **numbers}, path)
    return str(path)


def _block_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        **_norm_shapes(f"{name}.norm1", width),
        **_linear_shapes(f"{name}.attn.qkv", width, 3 * width),
        **_linear_shapes(f"{name}.attn.proj", width, width),
        **_norm_shapes(f"{name}.norm2", width),
        **_linear_shapes(f"{name}.mlp.fc1", width, 4 * width),
        **_linear_shapes(f"{name}.mlp.fc2", 4 * width, width),
    }


def _linear_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def mlvicx_state(convnet: ConvNet) -> dict[str, Tensor]:
    """Return a gated ResNet-18's weights under MLVICX's names, with two of its heads."""
    stages = {"conv1": 0, "bn1": 1} | {f"layer{n}": n + 3 for n in range(1, 5)}
    parts = {"down": "cam.fc.0", "up": "cam.fc.2", "spatial": "sam.conv1"}
    state = {}
    for key, value in convnet.state_dict().items():
        room, child, rest = key.split(".", 2)
        if room == "gates":
            part, rest = rest.split(".")
            state[f"cbt{int(child) + 1}.{parts[part]}.{rest}"] = value
        else:
            state[f"encoder.{stages[child]}.{rest}"] = value
    state["projetion.l1.0.weight"] = torch.zeros(2, 512)
    state["resize_project.conv_head.projection.2.weight"] = torch.zeros(2, 8)
    return state

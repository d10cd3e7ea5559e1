"""Going on from an earlier stage of the same objective, at another resolution if wanted."""

import torch
from torch import Tensor, nn

from cxrssl.backbones import ViT, resample_positions
from cxrssl.backbones.weights import read_weights
from cxrssl.errors import InputError

__all__ = ["load_stage", "read_stage"]


def read_stage(path: str) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name.

    Raises:
        InputError: If the file cannot be read.
    """
    return read_weights(path)[0]


def load_stage(objective: nn.Module, state: dict[str, Tensor], path: str) -> str:
    """Load all weights and buffers of a checkpoint; resample every position table to its new grid.

    The optimiser is not taken over: a stage has schedules of its own.

    Args:
        objective: Filled in place.
        state: What :func:`read_stage` has read.
        path: Where from, for messages.

    Returns:
        One sentence on what was done.

    Raises:
        InputError: If the checkpoint is of another objective or another size.
    """
    resized = 0
    # A backbone that several objectives share is saved under each of its names.
    for name, module in objective.named_modules(remove_duplicate=False):
        key = f"{name}.vit.pos_embed"
        if isinstance(module, ViT) and key in state:
            first = int(module.class_position)
            table = state[key]
            side = round((table.shape[1] - first) ** 0.5)
            patches = resample_positions(
                table[:, first:], (side, side), module.grid, module.interpolation
            )
            resized += int((side, side) != module.grid)
            state[key] = torch.cat([table[:, :first], patches], dim=1)
    try:
        objective.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:500]
        raise InputError(
            f"{path} does not fit {type(objective).__name__} as configured here (an encoder alone "
            f"belongs in model.backbone.weights): {detail}"
        ) from error
    return f"Continues from {path} with its teacher; {resized} position table(s) resampled."

"""Compiling the transformer blocks of a module, in place and without other names."""

from torch import nn

from cxrssl.backbones import PackedBlock
from cxrssl.errors import InputError

__all__ = ["compile_blocks"]


def compile_blocks(module: nn.Module, compiled: bool = True) -> None:
    """Let the blocks of a module run compiled, or no longer.

    Blocks are what a model repeats: compiling one of each shape is quick, leaves the names of
    weights as they are, and goes together with checkpointing and sharding block by block.

    Args:
        module: Changed in place.
        compiled: Whether they run compiled.

    Raises:
        InputError: If there is no block to compile.
    """
    blocks = [part for part in module.modules() if isinstance(part, PackedBlock)]
    if compiled and not blocks:
        raise InputError(
            f"{type(module).__name__} has no transformer blocks to compile: leave "
            "compile_blocks out"
        )
    for block in blocks:
        block.compiled = compiled

"""Counts the memory that tensors take, whether they hold numbers or not."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["MemoryMeter"]


class MemoryMeter(TorchDispatchMode):
    """Adds up the bytes of all storages that live at the same time.

    Args:
        prototypes: Shapes (K, D) of the layers of prototypes: logits are what ends with a K.
        masked: Number of true entries of the batch's masks, by the size of the mask, since fake
            tensors do not know it.

    Attributes:
        saved: Bytes kept for the backward pass.
        peak: Most bytes alive at once.
        logits: Most bytes of logits over prototypes alive at once.
    """

    def __init__(self, prototypes: set[tuple[int, int]], masked: Mapping[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.saved = self.peak = self.logits = 0
        self._prototypes = prototypes
        self._masked = masked
        self._live = self._live_logits = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._kept: weakref.WeakSet[Any] = weakref.WeakSet()
        self._left_out: list[Any] = []

    def leave_out(self, tensors: list[Tensor]) -> None:
        """Do not count tensors that are there before."""
        self._left_out = [tensor.untyped_storage() for tensor in tensors]
        self._seen.update(self._left_out)
        self._kept.update(self._left_out)

    def save(self, tensor: Tensor) -> Tensor:
        """Count a tensor that the backward pass needs, once for each storage."""
        storage = tensor.untyped_storage()
        if storage not in self._kept:
            self._kept.add(storage)
            self.saved += storage.nbytes()
        return tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:
            mask = args[0]
            shape = self._masked[mask.numel()], mask.ndim
            result = mask.new_empty(shape, dtype=torch.int64)
        else:
            result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        logits = size if self._is_logits(tensor) else 0
        weakref.finalize(storage, self._add, -size, -logits)
        self._add(size, logits)
        self.peak = max(self.peak, self._live)
        self.logits = max(self.logits, self._live_logits)

    def _add(self, size: int, logits: int) -> None:
        self._live += size
        self._live_logits += logits

    def _is_logits(self, tensor: Tensor) -> bool:
        # The gradient of the layer of prototypes may come transposed, (D, K).
        return tensor.ndim > 0 and any(
            tensor.shape[-1] == k and tensor.numel() not in (k, k * d) for k, d in self._prototypes
        )

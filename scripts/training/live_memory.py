"""Count the bytes and the operations of a computation, without computing or allocating anything.

Under torch's FakeTensorMode, tensors have shapes, data types and devices, but no memory. The operators of
the forward and backward pass run as usual, so each tensor is counted from its creation until its release.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that exist, while it is active.

    Attributes:
        bytes: bytes of the tensors that exist now.
        peak: highest value of `bytes` so far.
        flops: floating-point operations of the matrix products so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = self.flops = 0
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Count tensors that were created before; of those that share a storage, one counts."""
        for tensor in tensors:
            self._add(tensor)
        self.peak = max(self.peak, self.bytes)

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        known = self._storages.get(key)
        if known is not None and known() is storage:
            return
        size = storage.nbytes()

        def release(_: Any) -> None:
            self.bytes -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, release)
        self.bytes += size

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.flops += _count_flops(func.overloadpacket, args, kwargs or {}, result)
        tree_map_only(torch.Tensor, self._add, result)
        self.peak = max(self.peak, self.bytes)
        return result


def _count_flops(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    """Return the floating-point operations of an operator, and 0 for what is not a matrix product.

    torch.utils.flop_counter.FlopCounterMode is not used: it keeps the recomputed tensors of gradient
    checkpointing.
    """
    if operator is ATTENTION:
        query, key, value = (tensor.shape for tensor in args[:3])
        return int(sdpa_flop_count(query, key, value))
    if operator is ATTENTION_BACKWARD:
        gradient, query, key, value = (tensor.shape for tensor in args[:4])
        return int(sdpa_backward_flop_count(gradient, query, key, value))
    count = flop_registry.get(operator)
    return int(count(*args, **kwargs, out_val=result)) if count else 0

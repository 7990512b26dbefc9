"""Copies of networks, also of those that `copy.deepcopy` refuses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)


class _ComputedAsValues(TorchFunctionMode):
    """Lets a tensor that was computed from others be copied, as its values alone."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            args = (args[0].detach(), *args[1:])
        return func(*args, **(kwargs or {}))


def copy_of(network: Network, memo: Mapping[int, Tensor] | None = None) -> Network:
    """A deep copy, also of a network that holds tensors computed from others, as weight norm does.

    Args:
        network: any.
        memo: by id of a tensor, what to have in its place.
    """
    with _ComputedAsValues():
        return copy.deepcopy(network, dict(memo or {}))


def float_copy_of(
    network: Network,
    device: torch.device | None = None,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Network:
    """A float32 copy that can be trained without touching the original; device None keeps its."""
    copied = copy_of(network).float().to(device)
    return copied.to(memory_format=memory_format)  # type: ignore[call-overload]

"""What rebuilds a network that spandrel recognises: its architecture and the shapes it came in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from drc.core.errors import ModelError


class Blueprint(BaseModel):
    """A dense checkpoint without its weights: spandrel reads a network's sizes off the rest.

    Attributes:
        architecture: spandrel's id.
        tensors: name -> number type and shape, of the checkpoint that was opened.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    tensors: dict[str, tuple[str, tuple[int, ...]]]

    @classmethod
    def of(cls, architecture: str, state: Mapping[str, Tensor]) -> Blueprint:
        """The blueprint of a checkpoint of that architecture."""
        return cls(
            architecture=architecture,
            tensors={
                name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
                for name, tensor in state.items()
            },
        )

    def fill(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint of these names and shapes: from `state` what has them, the rest zero.

        Zeros take no memory: each is one number seen many times.

        Raises:
            ModelError: the blueprint is damaged.
        """
        filled = {}
        for name, (kind, shape) in self.tensors.items():
            dtype = getattr(torch, kind, None)
            if not isinstance(dtype, torch.dtype) or min(shape, default=0) < 0:
                raise ModelError(f"the recorded form of {name}, {kind} {list(shape)}, is damaged")
            known = state.get(name)
            if known is None or tuple(known.shape) != shape:
                known = torch.zeros((), dtype=dtype).expand(shape)
            filled[name] = known
        return filled

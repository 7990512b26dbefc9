"""A batch that memory does not hold, in equal parts whose gradients are added up."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor, nn

from drc.core.errors import TrainingError
from drc.core.randomness import RandomState


def in_pieces(batch: Sequence[Tensor], pieces: int, work: Callable[..., Tensor]) -> Tensor:
    """The mean of `work(share, *part)` over the parts of a batch, weighed by their images.

    Args:
        batch: tensors `(N, ...)`; they may differ in N.
        pieces: parts, at most as many as the first tensor has images.
        work: called with the part's share of the images of the first tensor, and the part.
    """
    if pieces == 1:
        return work(1.0, *batch)
    total: Tensor | None = None
    parts = zip(*(tensor.tensor_split(pieces) for tensor in batch), strict=True)
    for part in parts:
        share = len(part[0]) / len(batch[0])
        found = share * work(share, *part)
        total = found if total is None else total + found
    assert total is not None
    return total


def fewest_pieces(
    network: nn.Module, batch: Sequence[Tensor], run: Callable[[int], object], spare: int
) -> int:
    """In how few parts a batch goes through in the memory that there is; 1 where it fits.

    The trial leaves no trace: gradients, buffers and random states are put back.

    Args:
        network: what is trained.
        batch: the batch.
        run: forward and backward pass in so many parts.
        spare: bytes that must stay free beside the passes, on the device of the network.

    Raises:
        TrainingError: not even single images fit.
    """
    device = next(network.parameters()).device
    random = RandomState.capture(device)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    most = min(len(tensor) for tensor in batch)
    pieces = 1
    try:
        while not _fits(run, pieces, spare, device):
            if pieces == most:
                raise TrainingError(
                    "out of memory with one image at a time; use a smaller --patch, or amp bf16"
                )
            pieces = min(2 * pieces, most)
    finally:
        network.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[name])
        random.restore(device)
    return pieces


def _fits(run: Callable[[int], object], pieces: int, spare: int, device: torch.device) -> bool:
    try:
        reserve = torch.empty(spare, dtype=torch.uint8, device=device)
        run(pieces)
        del reserve
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Only here, outside of the handler, is the failed pass no longer held by its traceback.
    gc.collect()
    clear_device_cache()
    return False


def is_out_of_memory(error: Exception) -> bool:
    """Whether the memory of a device, or of the machine as torch asked for it, was exhausted."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(
        error
    )

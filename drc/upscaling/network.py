"""What enlarges images: a network of torch's or of ONNX, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from drc.core.errors import DrcError, ModelError, UsageError
from drc.core.runtime import resolve_device
from drc.evaluation.inference import Inference, borrowed
from drc.networks.traits import final_output, get_traits
from drc.training.pieces import is_out_of_memory

AMP = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What `--amp` takes -> the type of autocast."""

_ONNX_OUT_OF_MEMORY = "Failed to allocate memory"


class TooLargeError(ModelError):
    """A pass did not fit into the memory of its device."""


@dataclass(frozen=True)
class Upscaler:
    """A network that is ready to enlarge images.

    Attributes:
        name: for people.
        scale: HR side over LR side.
        channels: of its images, 3 or 1.
        value_range: of its images, 255.0 or 1.0.
        device: where it runs, in words.
        call: maps `(1, C, h, w)` to `(1, C, h * scale, w * scale)`, both in the network's range
            and in main memory.
        side: of the square tiles that it takes; 0 for a network that takes every size.
        multiple: `call` extends images to sides that are multiples of it, and cuts that off again.
    """

    name: str
    scale: int
    channels: int
    value_range: float
    device: str
    call: Callable[[Tensor], Tensor]
    side: int = 0
    multiple: int = 1

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise UsageError(
                f"{self.name} takes images of {self.channels} channels; images are enlarged by "
                "networks of 3 channels, RGB, or of 1, luma"
            )

    def run(self, lr: Tensor, how: Inference, on_pass: Callable[[], None] | None = None) -> Tensor:
        """Enlarge one image.

        Args:
            lr: `(1, C, h, w)`, 0..1, in main memory.
            how: in tiles, with self-ensemble.
            on_pass: called after every pass of the network.

        Returns:
            `(1, C, h * scale, w * scale)`, not clamped: what `drc.evaluate` rounds and measures.

        Raises:
            TooLargeError: a pass is too large.
            ModelError: the network fails, or gives an image of another size, or NaN.
        """

        def once(images: Tensor) -> Tensor:
            sr = self._checked(images)
            if on_pass is not None:
                on_pass()
            return sr

        return how.run(once, lr * self.value_range, self.scale).div_(self.value_range)

    def _checked(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        try:
            sr = self.call(lr)
        except DrcError:
            raise
        except Exception as error:  # a foreign forward raises what it likes
            if is_out_of_memory(error) or _ONNX_OUT_OF_MEMORY in str(error):
                raise TooLargeError(f"out of memory on {width}x{height} pixels") from None
            reason = " ".join(str(error).split())
            raise ModelError(
                f"the network failed on {width}x{height} pixels: {type(error).__name__}: {reason}"
            ) from error
        expected = (*lr.shape[:2], height * self.scale, width * self.scale)
        if tuple(sr.shape) != expected:
            raise ModelError(
                f"the network turned {tuple(lr.shape)} into {tuple(sr.shape)}, not {expected}"
            )
        if not torch.isfinite(sr).all():
            raise ModelError("the network's output holds NaN or infinite values")
        return sr


@contextmanager
def torch_upscaler(
    model: nn.Module, name: str, device: str | torch.device = "auto", amp: str = "no"
) -> Iterator[Upscaler]:
    """Borrow a network of torch's for the block; afterwards it is as it was, and where it was.

    Args:
        model: maps `(1, C, h, w)` to an image or a pyramid of images.
        name: for people.
        device: auto, cpu or cuda:N.
        amp: `no`, or `bf16` or `fp16` for autocast.

    Raises:
        UsageError: no such device or autocast, or a network of other channels.
    """
    if amp not in AMP:
        raise UsageError(f"--amp is {amp!r}; it is one of {', '.join(AMP)}")
    where, kind = resolve_device(device), AMP[amp]
    traits = get_traits(model)

    def call(lr: Tensor) -> Tensor:
        context = nullcontext() if kind is None else torch.autocast(where.type, kind)
        with context:
            sr = final_output(model(lr.to(where)))
        return sr.float().cpu()

    with borrowed(model, where):
        yield Upscaler(name, traits.scale, traits.channels, traits.value_range, str(where), call)

"""What images a network takes, found by trying: channels, sides, scale, multiple, least side.

A network is here whatever can be called with an image batch: a module, an exported file in its
runtime, an ONNX session. It refuses an image by raising, and foreign ones raise what they like. To
run out of memory is no refusal: that error gets through.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from drc.core.errors import ModelError

Size = tuple[int, int]
"""Height and width."""

Shape = tuple[int, int, int]
"""Channels, height and width."""

Candidate = TypeVar("Candidate")
Outcome = TypeVar("Outcome")

CHANNELS = (3, 1, 4, 2, 6)
"""What images may have, in the order tried: RGB, luma, RGBA or raw, ..."""

SIZES: tuple[Size, ...] = ((29, 43), (40, 70), (72, 48))
"""Heights and widths to try a network on. None fits windows: networks that pad then do so, as they
must where they are traced."""

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class NothingTakenError(Exception, Generic[Candidate]):
    """Every candidate was refused.

    Attributes:
        failures: each candidate with the error that refused it, in the order tried.
    """

    def __init__(self, failures: Sequence[tuple[Candidate, Exception]]) -> None:
        super().__init__(f"{len(failures)} candidates were refused")
        self.failures = list(failures)


def first_taken(
    candidates: Iterable[Candidate],
    run: Callable[[Candidate], Outcome],
    refusal: type[Exception] = Exception,
) -> tuple[Candidate, Outcome]:
    """The first candidate that `run` takes, and what it returned.

    Args:
        candidates: images, or what images are to be made of.
        run: the network, or work that runs it.
        refusal: the errors that mean "not this one"; others get through, and so does OUT_OF_MEMORY.

    Raises:
        NothingTakenError: it refuses all.
    """
    failures = []
    for candidate in candidates:
        try:
            return candidate, run(candidate)
        except OUT_OF_MEMORY:
            raise
        except refusal as error:
            failures.append((candidate, error))
    raise NothingTakenError(failures)


def noise(
    shapes: Iterable[Shape], like: Tensor | None = None, white: float = 1.0
) -> Iterator[Tensor]:
    """Images `(1, C, h, w)` of noise in 0..white: the same at every call, the caller's random
    numbers stay as they are.

    Args:
        shapes: one for each image.
        like: has their number type and device; by default float32 on the CPU.
        white: the largest value.
    """
    generator = torch.Generator().manual_seed(0)
    for shape in shapes:
        yield (torch.rand(1, *shape, generator=generator) * white).to(
            torch.zeros(()) if like is None else like
        )


def scale_between(lr: Tensor, sr: Tensor) -> int | None:
    """HR side over LR side; None unless it is a whole number, the same for both sides."""
    height, width = lr.shape[-2:]
    scale = sr.shape[-1] // width
    return scale if scale and sr.shape[-2:] == (height * scale, width * scale) else None


def smallest_multiple(work: Callable[[Sequence[Size]], Outcome]) -> tuple[Outcome, int]:
    """Call `work` with `SIZES`, rounded up to multiples of 1, 2, 4, ... 64 until it succeeds.

    Returns:
        What it returned, and the multiple.

    Raises:
        ModelError: what `work` raised for the sizes as they are, where it succeeds on none.
    """

    def at(multiple: int) -> Outcome:
        return work([(round_up(high, multiple), round_up(wide, multiple)) for high, wide in SIZES])

    try:
        multiple, outcome = first_taken(_MULTIPLES, at, ModelError)
    except NothingTakenError as error:
        raise error.failures[0][1] from None
    return outcome, multiple


def smallest_side(
    accepts: Callable[[Tensor], bool], photo: Tensor, multiple: int, least: int = 1
) -> int:
    """The side of the smallest image taken, where a larger one is taken if a smaller one is.

    Args:
        accepts: runs an LR image `(1, C, h, w)`; that it raises is as good as False.
        photo: one that is taken, whose corner is tried, square and with one long side.
        multiple: of this many LR pixels are the sides that are tried.
        least: smaller ones are not tried.
    """
    height, width = photo.shape[2:]

    def is_taken(side: int) -> bool:
        sizes = ((side, side), (side, width), (height, side))
        return all(_accepted(accepts, photo[:, :, :h, :w].contiguous()) for h, w in sizes)

    largest = min(height, width) // multiple * multiple
    sides = range(round_up(least, multiple), largest, multiple)
    if sides and is_taken(sides[0]):  # as nearly always
        return sides[0]
    found = bisect_left(sides, True, key=is_taken)
    return sides[found] if found < len(sides) else largest


def _accepted(accepts: Callable[[Tensor], bool], image: Tensor) -> bool:
    try:
        return accepts(image)
    except OUT_OF_MEMORY:
        raise
    except Exception:
        return False


def round_up(side: int, multiple: int) -> int:
    """The smallest multiple that is not smaller than `side`."""
    return -(-side // multiple) * multiple


def first_line(error: BaseException) -> str:
    """The first line of what a refusal says; empty where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")

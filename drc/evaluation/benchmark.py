"""Quality of a network on whole images, and the baseline that it must beat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from drc.core.errors import DataError, DrcError, ModelError
from drc.core.runtime import Progress, resolve_device
from drc.data.batches import BatchReader
from drc.data.bundled import bundled_pairs
from drc.data.folders import ImagePair, find_pairs, load_pair
from drc.data.images import to_uint8, to_unit
from drc.data.matlab import downscale, luma, upscale
from drc.evaluation.image import psnr_y, ssim_y
from drc.evaluation.inference import Inference, borrowed
from drc.networks.blind import KernelEstimator
from drc.networks.traits import Traits, get_traits, set_traits
from drc.settings.report import TILE_OVERLAP
from drc.training.kernel_loss import kernel_target

BUNDLED = "bundled"

Named = tuple[str, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class KernelScore:
    """The blur kernel of one image, `(k, k)` on the CPU, each of sum 1.

    Attributes:
        estimate: the network's.
        target: what `drc.training.kernel_loss.kernel_target` finds by comparing the LR image with
            a bicubic one.
    """

    estimate: Tensor
    target: Tensor

    @property
    def error(self) -> float:
        """Sum of the absolute differences: 0 where they are equal, 2 where they do not overlap."""
        return (self.estimate - self.target).abs().sum().item()


@dataclass(frozen=True)
class ImageScore:
    """PSNR in dB and SSIM of one image, and its blur kernel if the network estimated one."""

    name: str
    psnr: float
    ssim: float
    kernel: KernelScore | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Evaluation:
    """Means over the images, each image's own figures, and what was measured on, in words."""

    psnr: float
    ssim: float
    images: list[ImageScore] = field(repr=False)
    data: str

    @property
    def kernel_error(self) -> float | None:
        """Mean over the images with kernels; None without any."""
        errors = [image.kernel.error for image in self.images if image.kernel is not None]
        return fmean(errors) if errors else None


def evaluate(
    model: nn.Module,
    data: str | Path | Iterable[Any] = BUNDLED,
    *,
    device: str | torch.device = "auto",
    self_ensemble: bool = False,
    tile: int = 0,
    overlap: int = TILE_OVERLAP,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure PSNR and SSIM on whole images, by the protocol of the SR benchmarks.

    The output is clamped and rounded to 8 bits, and compared with HR on the luma of MATLAB's
    YCbCr, without a border of `scale` pixels. A network of one channel gets the luma of RGB
    images, rounded to 8 bits. The network returns to its own device and mode. Of a network that
    estimates blur kernels (`drc.networks.blind`) they are compared with what the images show, where
    these go through whole and once, and are no smaller than the kernel.

    Args:
        model: maps `(1, C, h, w)` in its value range to an image or a pyramid of images; C is 3
            or 1.
        data: "bundled" for the held-out bundled photos, a folder in any layout of `find_pairs`
            (its test split), a list of `ImagePair`, or an iterable of `(lr, hr)` pairs or
            batches: `(C, h, w)` or `(N, C, h, w)`, floats in 0..1, or dicts as in training.
        device: auto, cpu or cuda:N.
        self_ensemble: average the network's output over the eight flips and turns of each image.
        tile: largest LR side that goes through the network at once; 0 for whole images. See
            `upscale_tiled` for the networks whose output it changes.
        overlap: LR pixels of a tile that are dropped at every cut edge.
        progress: called after each image.

    Raises:
        DataError: no images, or unusable ones.
        ModelError: the network fails on an image, or gives one of the wrong size or NaN.
        UsageError: the device does not exist, or the tile is too small for the overlap.
    """
    device = resolve_device(device)
    inference = Inference(self_ensemble, tile, overlap)
    traits = get_traits(model)
    if traits.channels not in (1, 3):
        raise DataError(
            "PSNR and SSIM are measured on RGB and on one-channel images, and this network's have "
            f"{traits.channels} channels; leave them out (test=None, --test-data none)"
        )
    images, total, words = _source(data, traits)
    scores: list[ImageScore] = []
    with borrowed(model, device):
        for name, lr, hr in images:
            sr, kernel = _super_resolve(model, name, lr.to(device), hr, traits, inference)
            blur = None if kernel is None else score_kernel(kernel, lr, hr, traits.scale)
            score = ImageScore(name, *_measure(name, sr, hr, traits.scale), blur)
            scores.append(score)
            if progress is not None:
                figures = {"psnr": score.psnr, "ssim": score.ssim}
                progress("evaluate", len(scores), max(total, len(scores)), figures)
    psnr, ssim = fmean(s.psnr for s in scores), fmean(s.ssim for s in scores)
    words = (words or f"{len(scores)} images passed in") + inference.in_words()
    return Evaluation(psnr, ssim, scores, words)


def _source(data: str | Path | Iterable[Any], traits: Traits) -> tuple[Iterator[Named], int, str]:
    """The images as `(name, lr in 0..1, hr in uint8)`, their number (0: unknown), and in words."""
    if isinstance(data, (str, Path)):
        pairs = bundled_pairs("test") if data == BUNDLED else find_pairs(data, traits.scale, "test")
        return _read(pairs, traits), len(pairs), "bundled photos" if data == BUNDLED else str(data)
    if isinstance(data, Sequence) and data and isinstance(data[0], ImagePair):
        return _read(data, traits), len(data), ""
    if not isinstance(data, Iterable):
        raise DataError(
            f"cannot evaluate on a {type(data).__name__}; "
            "pass 'bundled', a folder, or an iterable of (lr, hr) pairs"
        )
    return _passed_in(data, traits), len(data) if isinstance(data, Sized) else 0, ""


def _read(pairs: Iterable[Any], traits: Traits) -> Iterator[Named]:
    for pair in pairs:
        lr, hr = load_pair(pair, traits.scale)
        if traits.channels == 1:
            yield pair.name, luma(to_unit(lr), 1.0), to_uint8(luma(to_unit(hr), 1.0))
        else:
            yield pair.name, to_unit(lr), hr


def _passed_in(items: Iterable[Any], traits: Traits) -> Iterator[Named]:
    """Number the images of the user's pairs or batches from 1."""
    count = 0
    pairs = map(_batched, items)
    for lrs, hrs in BatchReader(pairs, traits.scale, 1.0, "cpu", channels=traits.channels):
        for lr, hr in zip(lrs, hrs, strict=True):
            count += 1
            yield f"image {count}", lr, to_uint8(hr)


def _batched(item: Any) -> Any:
    """Give single images `(C, h, w)` the batch dimension that the reader expects."""

    def lift(value: Any) -> Any:
        return value[None] if isinstance(value, Tensor) and value.ndim == 3 else value

    if isinstance(item, Mapping):
        return {key: lift(value) for key, value in item.items()}
    return [lift(value) for value in item] if isinstance(item, (tuple, list)) else item


def _super_resolve(
    model: nn.Module, name: str, lr: Tensor, hr: Tensor, traits: Traits, inference: Inference
) -> tuple[Tensor, Tensor | None]:
    """Run one image in 0..1 through the network.

    Returns:
        Its 8-bit SR image on the CPU, and the estimated blur kernel, if there is just one.
    """
    size = f"{lr.shape[1]}x{lr.shape[2]}"
    kernels: list[Tensor] = []

    def network(images: Tensor) -> Any:
        if not isinstance(model, KernelEstimator):
            return model(images)
        sr, kernel = model.restore(images)
        kernels.append(kernel)
        return sr

    try:
        sr = inference.run(network, lr[None] * traits.value_range, traits.scale)
    except DrcError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the network failed on {name} (LR {size}): {type(error).__name__}: {reason}"
        ) from error
    if sr.shape[1:] != hr.shape:
        raise ModelError(
            f"the network turned {name} (LR {size}) into {tuple(sr.shape[1:])}, "
            f"not the {tuple(hr.shape)} of the HR image"
        )
    if not torch.isfinite(sr).all():
        raise ModelError(f"the network's output for {name} holds NaN or infinite values")
    # Tiles and turned views have kernels of their own, which are not that of the image.
    kernel = kernels[0] if len(kernels) == 1 else None
    return to_uint8(sr[0] / traits.value_range).cpu(), kernel


def _measure(name: str, sr: Tensor, hr: Tensor, border: int) -> tuple[float, float]:
    try:
        return psnr_y(sr, hr, border), ssim_y(sr, hr, border)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def score_kernel(kernel: Tensor, lr: Tensor, hr: Tensor, scale: int) -> KernelScore | None:
    """Compare a kernel with its target; None where the LR image is smaller than the kernel.

    Args:
        kernel: `(1, 1, k, k)`.
        lr: `(C, h, w)`, 0..1.
        hr: `(C, h * scale, w * scale)`, uint8.
        scale: HR side over LR side.
    """
    size = kernel.shape[-1]
    if min(lr.shape[-2:]) < size:
        return None
    clean = downscale(to_unit(hr)[None], scale, 1.0, rounded=False)
    target = kernel_target(clean, lr[None].cpu(), size)
    return KernelScore(kernel[0, 0].float().cpu(), target[0, 0])


class Bicubic(nn.Module):
    """Enlarges `(N, C, h, w)` to `(N, C, h * scale, w * scale)`, by MATLAB's bicubic filter."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        set_traits(self, Traits(scale=scale))

    def forward(self, x: Tensor) -> Tensor:
        return upscale(x, self.scale)

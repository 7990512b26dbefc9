"""Parameters and multiply-adds (MACs) of a network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor, nn

from drc.core.errors import ModelError
from drc.evaluation.inference import borrowed, on_image
from drc.networks.copying import copy_of


@dataclass(frozen=True)
class Complexity:
    """The cost of a network for one image.

    Attributes:
        params: scalars in parameters, fixed ones included, buffers not.
        macs: multiply-adds of one forward pass, batch 1; one multiply-add counts as one.
        lr_size: height and width of the LR image that `macs` is for.
        counter: the counter behind `macs`, with its version.
        thop_macs: thop's count as a cross-check, None where it is absent or fails. It misses
            matrix products outside layers.
    """

    params: int
    macs: int
    lr_size: tuple[int, int]
    counter: str
    thop_macs: int | None


def complexity(model: nn.Module, lr_size: tuple[int, int] = (96, 96)) -> Complexity:
    """Count parameters and MACs; `model` is not changed.

    The count takes one forward pass of a copy, on the device the network is on.

    Args:
        model: maps `(1, C, h, w)` to an SR image or a pyramid.
        lr_size: height and width of the LR image.

    Raises:
        ModelError: the network does not run on an image of that size.
    """
    size = int(lr_size[0]), int(lr_size[1])
    try:
        macs = int(_analyse(model, size)[""])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"cannot count the MACs of a {size[0]}x{size[1]} LR image: "
            f"{type(error).__name__}: {reason}"
        ) from error
    params = sum(p.numel() for p in model.parameters())
    return Complexity(params, macs, size, f"fvcore {version('fvcore')}", _thop_macs(model, size))


def macs_per_weight(model: nn.Module, lr_size: tuple[int, int] = (96, 96)) -> dict[str, float]:
    """MACs by the name of the weight they are spent on, for predicting those of narrower layers.

    What no module's own weight accounts for stands under the empty name. Values sum to
    `complexity(model, lr_size).macs`; arguments as there.
    """
    counts = _analyse(model, lr_size)
    weights = {
        f"{name}.weight": float(counts.get(name, 0))
        for name, module in model.named_modules()
        if name
        and not list(module.children())
        and isinstance(getattr(module, "weight", None), nn.Parameter)
        and module.weight.ndim > 1
    }
    return {**weights, "": float(counts[""]) - sum(weights.values())}


def _analyse(model: nn.Module, lr_size: tuple[int, int]) -> Mapping[str, float]:
    """fvcore's count by module name; the empty name is the whole network."""
    with _quiet():
        from fvcore.nn import FlopCountAnalysis

    def count(lr: Tensor) -> dict[str, float]:
        analysis = FlopCountAnalysis(twin, lr)
        analysis.unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        return dict(analysis.by_module())

    home = _device(model)  # not the meta device, as for thop: torch's tracer loses ops there
    with _twin(model, home) as twin:
        return on_image(twin, lr_size, home, count)


def _thop_macs(model: nn.Module, lr_size: tuple[int, int]) -> int | None:
    try:
        with _quiet():
            import thop
    except ImportError:  # it needs distutils: from Python 3.12 on, setuptools
        return None

    def count(lr: Tensor) -> int:
        return int(thop.profile(twin, inputs=(lr,), verbose=False)[0])

    for device in (torch.device("meta"), _device(model)):  # shapes alone do, for most networks
        try:
            with _twin(model, device) as twin:
                return on_image(twin, lr_size, device, count)
        except Exception:  # a mere cross-check: what thop cannot count must not stop the report
            continue
    return None


def _device(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return tensor.device if tensor is not None else torch.device("cpu")


@contextmanager
def _twin(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """A copy in eval mode, without gradients, for a counter to work on."""
    with _quiet(), borrowed(copy_of(model).to(device)) as twin:
        yield twin


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings: the counters' deprecations and the tracer's remarks are not the user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

"""From what the user names to a network that enlarges: a file, a name, code, or a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from drc.core.errors import RunError, UsageError
from drc.core.runtime import Progress
from drc.opening import open_network, open_saved
from drc.store.run_folder import COMPRESSION, RunFolder
from drc.upscaling.network import Upscaler, torch_upscaler
from drc.upscaling.onnx_network import onnx_upscaler

_ONNX = ".onnx"


@contextmanager
def open_upscaler(
    model: str | None = None,
    weights: str | None = None,
    scale: int | None = None,
    run: Path | None = None,
    *,
    device: str = "auto",
    amp: str = "no",
    progress: Progress | None = None,
) -> Iterator[Upscaler]:
    """Open the network that the options of `drc upscale` name.

    Args:
        model, weights, scale: as for `open_network`; `weights` may be an ONNX file.
        run: a run folder, whose best network is taken; None for the newest run, where neither
            `model` nor `weights` is given.
        device: auto, cpu or cuda:N.
        amp: `no`, `bf16` or `fp16`.
        progress: called with a download's bytes.

    Raises:
        UsageError: options that exclude each other, or cannot be used.
        RunError: there is no run, or it holds no network yet.
        WeightsError, ModelError: the network cannot be opened.
    """
    if weights is not None and Path(weights).suffix.lower() == _ONNX:
        if model is not None or run is not None or amp != "no":
            raise UsageError("an ONNX file stands alone; leave --model, --run and --amp out")
        yield _of_scale(onnx_upscaler(weights, device), scale)
        return
    if run is not None and (model is not None or weights is not None):
        raise UsageError("--run takes the network of a run; leave --model and --weights out")
    if model is None and weights is None:
        network, name = of_run(run)
    else:
        network = open_network(model, weights, scale, progress)
        name = " ".join(part for part in (model, weights) if part is not None)
    with torch_upscaler(network, name, device, amp) as upscaler:
        yield _of_scale(upscaler, scale)


def of_run(folder: Path | None) -> tuple[nn.Module, str]:
    """The network of a run, the newest for None, and the path of its file.

    Of a compression that is the recovered network, or else the pruned one; of a training or an
    adaptation the trained one.
    """
    run = RunFolder.find(folder, kind=None)
    path = run.compressed_path if run.kind == COMPRESSION else run.trained_path
    if not path.is_file():
        raise RunError(
            f"{run.path} holds no network yet ({path.name}); finish the run, or pass --model "
            "or --weights"
        )
    return open_saved(run.read_config().get("model"), path), str(path)


def _of_scale(upscaler: Upscaler, scale: int | None) -> Upscaler:
    if scale in (None, upscaler.scale):
        return upscaler
    raise UsageError(
        f"--scale {scale} is not that of {upscaler.name}: it enlarges x{upscaler.scale}; leave "
        "--scale out"
    )

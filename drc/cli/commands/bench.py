"""`drc bench`: how much faster the compressed network really is."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drc.cli import options as o
from drc.cli.display import Display
from drc.cli.errors import Interrupted
from drc.core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from drc.evaluation.speed import Timing
    from drc.report.bench_table import BenchRecord

_Network = Annotated[
    str | None, typer.Option(help="Network to compare with: registered name, own code, or file.")
]
_Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NETWORK",
        help="Network to compare: the same, or a compressed file; may be repeated.",
    ),
]
_Run = Annotated[Path | None, typer.Option(help="Run folder to measure [default: newest].")]
_Modes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODES",
        help="eager, channels_last, compiled, bf16 [default: these], onnx, onnx_fp16, onnx_int8, "
        "openvino, openvino_fp16, ncnn, ncnn_fp16, pt2.",
    ),
]
_Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--lr-size", metavar="HxW", help="LR image; may be repeated [default: 96x96, 270x480]."
    ),
]
_Runs = Annotated[int, typer.Option(help="Timed passes per network.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads [default: torch's].")]
_Merge = Annotated[bool, typer.Option("--merge", help="Merge convolutions where that is exact.")]
_Output = Annotated[Path | None, typer.Option(help="JSON file, written after every mode.")]

_WEIGHTS = (".pth", ".pt", ".safetensors")


def command(
    ctx: typer.Context,
    model: _Network = None,
    against: _Against = None,
    scale: o.Scale = None,
    run: _Run = None,
    modes: _Modes = None,
    lr_size: _Sizes = None,
    runs: _Runs = 5,
    threads: _Threads = None,
    merge: _Merge = False,
    device: o.Device = None,
    output: _Output = None,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Time networks side by side, in every mode.

    Ratios of times, beside those of MACs; by default the networks of the newest run.

    Example: drc bench --model drn_s --against drn_s30 --against drn_s50
    """
    sizes = [o.lr_size(text) for text in lr_size or ["96x96", "270x480"]]
    if run is not None and model is not None:
        raise UsageError("--run measures a run folder and --model other networks; pass one of them")
    if against and model is None:
        raise UsageError("--against needs --model, the network to compare with")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; a network needs at least 1")
    import torch

    from drc.evaluation.speed import MODES, bench
    from drc.exporters.backends import backends
    from drc.report.bench_table import start_record

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = [mode for text in modes or MODES for mode in text.split(",")]
    networks = _of_run(run) if model is None else _named([model, *(against or [])], scale)
    notes: list[str] = []
    if merge:
        networks = {name: _merged(name, network, notes) for name, network in networks.items()}
    bars = _Bars(quiet)
    place = device or "auto"
    with backends(chosen) as others:
        measured = bench(
            networks, sizes, chosen, runs=runs, device=place, others=others, progress=bars
        )
        told = {name: others[name].meaning for name in chosen if name in others}
        record = start_record(networks, sizes, runs, place, notes, told)
        _print_as_measured(record, measured, bars, output, as_json)


def _print_as_measured(
    record: BenchRecord,
    measured: Iterable[list[Timing]],
    bars: _Bars,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print every size and mode when it is there, so that Ctrl-C keeps the figures until then."""
    from drc.core.files import write_text

    def show(lines: Iterable[str]) -> None:
        bars.clear()
        for line in () if as_json else lines:
            print(line, flush=True)

    try:
        show(record.head())
        for timings in measured:
            record.timings += timings
            show(record.lines(timings))
            if output is not None:
                write_text(output, record.to_json() + "\n")
        record.finished = True
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the figures until then are whole") from None
    finally:
        bars.clear()
        if as_json:
            print(record.to_json(), file=sys.stdout, flush=True)
        if output is not None:
            write_text(output, record.to_json() + "\n")


class _Bars:
    """Progress that leaves the terminal while results are printed."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._display: Display | None = None

    def __call__(self, what: str, done: int, total: int, metrics: dict[str, float]) -> None:
        if self._display is None:
            self._display = Display(self._quiet, transient=True)
        self._display(what, done, total, metrics)

    def clear(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None


def _of_run(folder: Path | None) -> dict[str, nn.Module]:
    """The dense network of a run, and the recovered one, else the pruned one."""
    from drc.cli.session import need
    from drc.opening import open_saved
    from drc.settings.reader import load_settings
    from drc.store.run_folder import RunFolder

    run = RunFolder.find(folder)
    settings = load_settings(None, {}, run.read_config())
    done = run.finetuned_path.is_file()
    path = run.finetuned_path if done else need(run.pruned_path, "pruned network", "drc prune")
    dense = _open(settings.model or str(settings.weights), settings.scale)
    return {"dense": dense, "finetuned" if done else "pruned": open_saved(settings.model, path)}


def _named(specs: list[str], scale: int | None) -> dict[str, nn.Module]:
    """The networks that were named, by name, or by a file's; the first may be the user's code."""
    from drc.networks.factory import is_factory
    from drc.opening import open_saved

    networks: dict[str, nn.Module] = {}
    for spec in specs:
        is_file = Path(spec).expanduser().is_file()
        name = Path(spec).stem if is_file else spec
        if name in networks:
            name = f"{spec} ({len(networks) + 1})"
        own = is_file and is_factory(specs[0])
        networks[name] = open_saved(specs[0], spec) if own else _open(spec, scale)
    return networks


def _open(spec: str, scale: int | None) -> nn.Module:
    """A network on initial weights, which take as long as others, or the one of a file."""
    from drc.opening import open_network

    if Path(spec).expanduser().is_file() or Path(spec).suffix in _WEIGHTS:
        return open_network(None, spec)
    return open_network(spec, "none", scale)


def _merged(name: str, network: nn.Module, notes: list[str]) -> nn.Module:
    from drc.merging.merge import merge

    told: list[str] = []
    merged = merge(network, notes=told)
    notes.extend(f"{name}: {note}" for note in told)
    return merged

"""`drc bench`: how much faster the compressed network really is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from drc.cli import options as o
from drc.cli.commands.export import compressed_network, use_threads
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
    sizes = [o.lr_size(text) for text in lr_size or ()]
    if run is not None and model is not None:
        raise UsageError("--run measures a run folder and --model other networks; pass one of them")
    if against and model is None:
        raise UsageError("--against needs --model, the network to compare with")
    use_threads(threads)
    from drc.evaluation.speed import MODES, SIZES, bench
    from drc.exporters.backends import backends
    from drc.report.bench_table import start_record

    sizes = sizes or list(SIZES)
    chosen = [mode for text in modes or MODES for mode in text.split(",")]
    networks = _of_run(run) if model is None else _named([model, *(against or [])], scale)
    notes: list[str] = []
    if merge:
        networks = {name: _merged(name, network, notes) for name, network in networks.items()}
    display = Display(quiet, transient=True)
    device = device or "auto"
    with backends(chosen) as others:
        measured = bench(
            networks, sizes, chosen, runs=runs, device=device, others=others, progress=display
        )
        meanings = {name: others[name].meaning for name in chosen if name in others}
        record = start_record(networks, sizes, runs, device, notes, meanings)
        _print_as_measured(record, measured, display, output, as_json)


def _print_as_measured(
    record: BenchRecord,
    measured: Iterable[list[Timing]],
    display: Display,
    output: Path | None,
    as_json: bool,
) -> None:
    """Print every size and mode when it is there, so that Ctrl-C keeps the figures until then."""
    from drc.core.files import write_text

    def show(lines: Iterable[str]) -> None:
        display.close()  # bars leave the terminal while results are printed
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
        display.close()
        if as_json:
            print(record.to_json(), flush=True)
        if output is not None:
            write_text(output, record.to_json() + "\n")


def _of_run(folder: Path | None) -> dict[str, nn.Module]:
    """The dense network of a run, and the recovered one, else the pruned one."""
    found = compressed_network(folder)
    settings = found.settings
    dense = _open(settings.model or str(settings.weights), settings.scale)
    return {"dense": dense, found.stage: found.network}


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

    found: list[str] = []
    merged = merge(network, notes=found)
    notes.extend(f"{name}: {note}" for note in found)
    return merged

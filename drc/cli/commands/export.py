"""`drc export`: the network as a file for another runtime, proved there."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drc.cli import options as o
from drc.cli.display import Display
from drc.core.errors import DrcError, ExportError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from drc.exporters.result import Exported
    from drc.settings import RunSettings
    from drc.store.run_folder import RunFolder

_Run = Annotated[Path | None, typer.Option(help="Run folder to export from [default: newest].")]
_Weights = Annotated[
    str | None, typer.Option(help="In place of a run: checkpoint file, or `none` for initial ones.")
]
_Model = Annotated[
    str | None, typer.Option(help="In place of a run: registered network, or your own code.")
]
_To = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORMATS",
        help="onnx, pt2, openvino, ncnn, by commas or several times [default: onnx].",
    ),
]
_Half = Annotated[bool, typer.Option("--fp16", help="Write float16 files.")]
_Int8 = Annotated[bool, typer.Option("--int8", help="Write 8-bit files (onnx), and their cost.")]
_Size = Annotated[
    str | None, typer.Option("--lr-size", metavar="HxW", help="One LR size [default: any size].")
]
_Opset = Annotated[int | None, typer.Option(help="Of ONNX [default: 17].")]
_Output = Annotated[
    Path | None, typer.Option(help="Folder [default: export/ in the run folder, or here].")
]
_Dense = Annotated[bool, typer.Option("--dense", help="Keep the dense network's file as well.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
_Data = Annotated[
    str | None,
    typer.Option(help="Images to calibrate int8 by [default: the run's, or bundled photos]."),
]
_TestData = Annotated[
    str | None,
    typer.Option(
        help="Images to measure the cost of --fp16 and --int8 on, `bundled` or `none` "
        "[default: the run's, or bundled photos]."
    ),
]
_Runs = Annotated[int, typer.Option(help="Timed passes per file, 0 for none.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads [default: torch's].")]


@dataclass
class Source:
    """What to export.

    Attributes:
        network: itself.
        dense: what it was before compression; None where that is not known.
        name: of the files, without the precision.
        dense_name: of those of the dense network.
        folder: for the files, unless the user names one.
        data: images to calibrate by; None for the bundled photos.
        test: images to measure on; None for none.
    """

    network: nn.Module
    dense: nn.Module | None
    name: str
    dense_name: str
    folder: Path
    data: str | None
    test: str | None


def command(
    ctx: typer.Context,
    run: _Run = None,
    weights: _Weights = None,
    model: _Model = None,
    scale: o.Scale = None,
    to: _To = None,
    fp16: _Half = False,
    int8: _Int8 = False,
    lr_size: _Size = None,
    opset: _Opset = None,
    dense: _Dense = False,
    data: _Data = None,
    test_data: _TestData = None,
    runs: _Runs = 5,
    threads: _Threads = None,
    output: _Output = None,
    overwrite: _Overwrite = False,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Write the network for another runtime, and test it there.

    Every file is opened in its runtime, compared with the network on photos, and timed.

    Example: drc export --to onnx,ncnn
    """
    size = None if lr_size is None else o.lr_size(lr_size)
    others = weights is not None or model is not None
    if others and run is not None:
        raise UsageError("--run exports from a run, --weights and --model others; pass one of them")
    if others and dense:
        raise UsageError("--dense keeps the dense network of a run; export a file by --weights")
    use_threads(threads)
    wanted = _wanted(to, fp16, int8, opset)
    source = _named(model, weights, scale) if others else _of_run(run, scale, dense)
    if data is not None:
        source.data = data
    if test_data is not None:
        source.test = None if test_data == "none" else test_data
    folder = source.folder if output is None else output.expanduser()
    from drc.exporters.result import check_folder

    check_folder(folder)
    how = {"lr_size": size, "opset": opset, "runs": runs, "overwrite": overwrite}
    done: list[Exported] = []
    failures: list[DrcError] = []
    for name, precision in wanted:
        try:
            done.append(_export(source, folder, name, precision, dense, quiet, how))
        except DrcError as error:  # the others may do
            failures.append(error)
            continue
        if not as_json:
            print("\n".join(done[-1].lines()), flush=True)
    if as_json and done:
        print(json.dumps([found.to_dict() for found in done], indent=2))
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExportError("; ".join(dict.fromkeys(str(error) for error in failures)))


def use_threads(threads: int | None) -> None:
    """Have torch use so many CPU threads; None leaves it as it is. Raises UsageError."""
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; a network needs at least 1")
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _wanted(
    to: list[str] | None, fp16: bool, int8: bool, opset: int | None
) -> list[tuple[str, str]]:
    """The format and the precision of every file that was asked for."""
    from drc.exporters.formats.base import FLOAT, HALF, INT8, get_format

    formats = list(dict.fromkeys(name for text in to or ["onnx"] for name in text.split(",")))
    if opset is not None and not {"onnx", "openvino"} & set(formats):
        raise UsageError(f"--opset is of ONNX files, and --to {','.join(formats)} writes none")
    precisions = [name for name, chosen in ((HALF, fp16), (INT8, int8)) if chosen] or [FLOAT]
    wanted = [(name, precision) for name in formats for precision in precisions]
    for name, precision in wanted:
        get_format(name).need(precision)
    return wanted


def _export(
    source: Source,
    folder: Path,
    to: str,
    precision: str,
    keep_dense: bool,
    quiet: bool,
    how: dict[str, Any],
) -> Exported:
    """Write one file, and note it beside. Raises DrcError."""
    from drc.exporters.result import record
    from drc.exporters.run import export

    size = how["lr_size"]
    end = "" if size is None else f"_{size[0]}x{size[1]}"
    end += "" if precision == "fp32" else f"_{precision}"
    with closing(Display(quiet, transient=True)) as display:
        display.log(f"{to} {precision} ...")
        found = export(
            source.network,
            folder / f"{source.name}{end}",
            to=to,
            precision=precision,
            dense=source.dense,
            dense_path=folder / f"{source.dense_name}{end}" if keep_dense else None,
            data=source.data,
            test=source.test,
            progress=display,
            **how,
        )
        record(found)
    return found


@dataclass(frozen=True)
class Compressed:
    """The recovered network of a run, else the pruned one, and which of them it is."""

    network: nn.Module
    stage: str
    settings: RunSettings
    run: RunFolder


def compressed_network(folder: Path | None) -> Compressed:
    """That of a run, the newest for None. Raises RunError where there is none."""
    from drc.opening import open_saved
    from drc.settings.reader import load_settings
    from drc.store.run_folder import RunFolder

    run = RunFolder.find(folder)
    settings = load_settings(None, {}, run.read_config())
    path = run.compressed_path
    done = path == run.finetuned_path
    network = open_saved(settings.model, path)
    return Compressed(network, "finetuned" if done else "pruned", settings, run)


def _of_run(folder: Path | None, scale: int | None, keep_dense: bool) -> Source:
    """The network of a run, with the dense one beside it."""
    from drc.opening import open_network

    if scale is not None:
        raise UsageError("--scale is for --model; a run knows its own scale")
    found = compressed_network(folder)
    settings = found.settings
    # Without --dense it is only timed: any weights will do, and none has to be there.
    weights = settings.weights if keep_dense or settings.model is None else "none"
    dense = open_network(settings.model, weights, settings.scale)
    stem, test = _stem(found.network), settings.data.test_data
    return Source(
        found.network,
        dense,
        f"{stem}_{found.stage}",
        f"{stem}_dense",
        found.run.path / "export",
        settings.data.data,
        None if test == "none" else (test or "bundled"),
    )


def _named(model: str | None, weights: str | None, scale: int | None) -> Source:
    """The network of a file or of a name, alone."""
    from drc.opening import open_network

    network = open_network(model, weights, scale)
    stem = _stem(network) if weights in (None, "none", "default") else Path(str(weights)).stem
    return Source(network, None, stem, f"{stem}_dense", Path("export"), None, "bundled")


def _stem(network: nn.Module) -> str:
    from drc.networks.traits import get_traits

    traits = get_traits(network)
    return f"{traits.preset or type(network).__name__}_x{traits.scale}"

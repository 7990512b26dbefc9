"""`drc export`: the network as a file for another runtime, proved there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drc.cli import options as o
from drc.cli.display import Display
from drc.core.errors import DrcError, ExportError, RunError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from drc.exporters.result import Exported

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
    if threads is not None and threads < 1:
        raise UsageError(f"--threads is {threads}; a network needs at least 1")
    import torch

    from drc.exporters.formats.base import FLOAT, HALF, INT8, get_format

    if threads is not None:
        torch.set_num_threads(threads)
    formats = list(dict.fromkeys(name for text in to or ["onnx"] for name in text.split(",")))
    if opset is not None and not {"onnx", "openvino"} & set(formats):
        raise UsageError(f"--opset is of ONNX files, and --to {','.join(formats)} writes none")
    precisions = [name for name, chosen in ((HALF, fp16), (INT8, int8)) if chosen] or [FLOAT]
    for name in formats:
        for precision in precisions:
            get_format(name).need(precision)
    source = _named(model, weights, scale) if others else _of_run(run, scale, dense)
    if data is not None:
        source.data = data
    if test_data is not None:
        source.test = None if test_data == "none" else test_data
    folder = _folder(source, output)
    shared: dict[str, Any] = {"lr_size": size, "opset": opset, "runs": runs}
    shared["overwrite"] = overwrite
    wanted = [(name, precision) for name in formats for precision in precisions]
    done, failures = [], []
    for outcome in _all(source, folder, wanted, dense, shared, quiet):
        if isinstance(outcome, DrcError):
            failures.append(outcome)
            continue
        done.append(outcome)
        if not as_json:
            print("\n".join(outcome.lines()), flush=True)
    if as_json and done:
        print(json.dumps([found.to_dict() for found in done], indent=2))
    _end(failures)


def _all(
    source: Source,
    folder: Path,
    wanted: list[tuple[str, str]],
    keep_dense: bool,
    shared: dict[str, Any],
    quiet: bool,
) -> Iterator[Exported | DrcError]:
    """Every file that was asked for, or why there is none, as it is there."""
    from drc.exporters.result import record
    from drc.exporters.run import export

    for to, precision in wanted:
        ends = _ending(precision, shared["lr_size"])
        kept = folder / f"{source.dense_name}{ends}" if keep_dense else None
        display = Display(quiet, transient=True)
        display.log(f"{to} {precision} ...")
        outcome: Exported | DrcError
        try:
            outcome = export(
                source.network,
                folder / f"{source.name}{ends}",
                to=to,
                precision=precision,
                dense=source.dense,
                dense_path=kept,
                data=source.data,
                test=source.test,
                progress=display,
                **shared,
            )
            record(outcome)
        except DrcError as error:
            outcome = error
        finally:
            display.close()
        yield outcome


def _end(failures: list[DrcError]) -> None:
    """Raise what went wrong, as one error."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExportError("; ".join(dict.fromkeys(str(error) for error in failures)))


def _ending(precision: str, size: tuple[int, int] | None) -> str:
    fixed = "" if size is None else f"_{size[0]}x{size[1]}"
    return fixed + ("" if precision == "fp32" else f"_{precision}")


def _folder(source: Source, output: Path | None) -> Path:
    """Where the files go: a new folder, an empty one, or one of earlier exports."""
    from drc.exporters.result import RECORD, read_record

    folder = source.folder if output is None else output.expanduser()
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; pass --output with a folder")
    if _holds_others(folder) and not (folder / RECORD).is_file():
        raise RunError(
            f"{folder} exists and holds something else than exports of drc's; pass --output with "
            "a new folder"
        )
    read_record(folder / RECORD)  # what is damaged is told before the work
    return folder


def _holds_others(folder: Path) -> bool:
    """Whether anything lies there but what failed or killed exports leave."""
    left = (file.name for file in folder.iterdir()) if folder.is_dir() else ()
    return any(".rejected." not in name and not name.startswith(".export-") for name in left)


def _of_run(folder: Path | None, scale: int | None, keep_dense: bool) -> Source:
    """The recovered network of a run, else the pruned one, with the dense one beside it."""
    from drc.cli.session import need
    from drc.networks.traits import get_traits
    from drc.opening import open_network, open_saved
    from drc.settings.reader import load_settings
    from drc.store.run_folder import RunFolder

    if scale is not None:
        raise UsageError("--scale is for --model; a run knows its own scale")
    run = RunFolder.find(folder)
    settings = load_settings(None, {}, run.read_config())
    done = run.finetuned_path.is_file()
    path = run.finetuned_path if done else need(run.pruned_path, "pruned network", "drc prune")
    network = open_saved(settings.model, path)
    weights = settings.weights
    if not keep_dense and settings.model is not None:
        weights = "none"  # to time it any will do, and none has to be there
    dense = open_network(settings.model, weights, settings.scale)
    traits = get_traits(network)
    stem = f"{traits.preset or type(network).__name__}_x{traits.scale}"
    test = settings.data.test_data
    return Source(
        network,
        dense,
        f"{stem}_{'finetuned' if done else 'pruned'}",
        f"{stem}_dense",
        run.path / "export",
        settings.data.data,
        None if test == "none" else (test or "bundled"),
    )


def _named(model: str | None, weights: str | None, scale: int | None) -> Source:
    """The network of a file or of a name, alone."""
    from drc.networks.traits import get_traits
    from drc.opening import open_network

    network = open_network(model, weights, scale)
    traits = get_traits(network)
    stem = f"{traits.preset or type(network).__name__}_x{traits.scale}"
    if weights not in (None, "none", "default"):
        stem = Path(str(weights)).stem
    return Source(network, None, stem, f"{stem}_dense", Path("export"), None, "bundled")

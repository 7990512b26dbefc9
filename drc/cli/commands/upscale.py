"""`drc upscale`: enlarge images, folders and videos with a network."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from drc.cli import options as o
from drc.cli.display import Display
from drc.cli.errors import Interrupted
from drc.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from drc.upscaling.enlarge import Enlarger
    from drc.upscaling.run import Outcome

_In = Annotated[Path, typer.Argument(metavar="IN", help="An image, a folder of images, a video.")]
_Out = Annotated[
    str, typer.Argument(metavar="OUT", help="A file or a folder; for a folder IN a folder.")
]
_Model = Annotated[
    str | None,
    typer.Option(help="Registered network, or your own code [default: what --weights is of]."),
]
_Weights = Annotated[
    str | None,
    typer.Option(help="Checkpoint of any network that drc opens, or an ONNX file."),
]
_Run = Annotated[
    Path | None, typer.Option(help="Run folder whose network to use [default: newest].")
]
_Ensemble = Annotated[
    bool, typer.Option("--self-ensemble", help="Average 8 flips and turns, in 8 times the time.")
]
_Tile = Annotated[
    str, typer.Option(help="Largest LR side at once; 0 for whole images; auto: by their size.")
]
_Overlap = Annotated[int, typer.Option(help="LR pixels of a tile dropped at every cut edge.")]
_Format = Annotated[
    str | None, typer.Option("--format", help="png, jpg, webp, tiff [default: the input's].")
]
_Quality = Annotated[int, typer.Option(help="Of JPEG and WebP, 1 to 100.")]
_Suffix = Annotated[str, typer.Option(help="Put behind the names of outputs, such as _x4.")]
_Resume = Annotated[bool, typer.Option("--resume", help="Leave outputs that are there already.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that are there.")]
_Amp = Annotated[str, typer.Option(help="Autocast: no, bf16 or fp16.")]


def command(
    source: _In,
    out: _Out,
    model: _Model = None,
    weights: _Weights = None,
    scale: o.Scale = None,
    run: _Run = None,
    self_ensemble: _Ensemble = False,
    tile: _Tile = "auto",
    overlap: _Overlap = 16,
    image_format: _Format = None,
    quality: _Quality = 95,
    suffix: _Suffix = "",
    resume: _Resume = False,
    overwrite: _Overwrite = False,
    device: o.Device = None,
    amp: _Amp = "no",
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Enlarge images, folders or videos with a network.

    By default with that of the newest run.

    Example: drc upscale photos enlarged --model drn_s
    """
    chosen = _tile(tile)
    from drc.data.photo_files import check_quality
    from drc.data.video import VIDEO_SUFFIXES
    from drc.upscaling.enlarge import Enlarger
    from drc.upscaling.opening import open_upscaler
    from drc.upscaling.outputs import Naming, plan_film, plan_outputs
    from drc.upscaling.run import Outcome, UpscaleRun, enlarge_images
    from drc.upscaling.video import enlarge_video

    check_quality(quality)
    wanted = (source, out, Naming(image_format, suffix), resume, overwrite)
    is_video = source.is_file() and source.suffix.lower() in VIDEO_SUFFIXES
    film = plan_film(*wanted) if is_video else None
    outputs = [] if film else plan_outputs(*wanted)
    outcome, display = Outcome(len(outputs)), Display(quiet)

    def warn(text: str) -> None:
        _warn(display, text)

    try:
        with open_upscaler(
            model, weights, scale, run, device=device or "auto", amp=amp, progress=display
        ) as upscaler:
            enlarger = Enlarger(upscaler, chosen, overlap, self_ensemble, display.log)
            work = UpscaleRun(enlarger, outcome, display.log, warn, display, quality, resume)
            if film is not None:
                enlarge_video(work, film)
            else:
                if len(outputs) == 1:
                    enlarger.on_pass = lambda done, total: display("passes", done, total, {})
                enlarge_images(work, outputs)
    except KeyboardInterrupt:
        raise Interrupted(_how_to_go_on(outcome)) from None
    finally:
        display.close()
    _print_outcome({"output": out, **_facts(outcome, enlarger)}, as_json)
    if outcome.failed:
        rest = "the others are there" if outcome.done else "nothing is written"
        raise DataError(
            f"{len(outcome.failed)} of {outcome.total} {outcome.unit} could not be used, as said "
            f"above; {rest}"
        )


def _tile(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--tile is {text!r}; pass auto, a number of LR pixels, or 0")
    return int(text)


def _warn(display: Display, text: str) -> None:
    """A line that --quiet does not suppress."""
    if display.silent:
        print(text, file=sys.stderr, flush=True)
    else:
        display.log(text)


def _how_to_go_on(outcome: Outcome) -> str:
    """What is kept after Ctrl-C, and the command that makes the rest."""
    again = [part for part in sys.argv[1:] if part != "--overwrite"]
    if outcome.resumable and "--overwrite" in sys.argv:  # old outputs would count as done
        return (
            f"interrupted; {outcome.done} of {outcome.total} {outcome.unit} are made anew, start "
            f"again with: {shlex.join(['drc', *sys.argv[1:]])}"
        )
    if not outcome.resumable:
        return f"interrupted; nothing is written, start again with: {shlex.join(['drc', *again])}"
    if "--resume" not in again:
        again.append("--resume")
    of = f" of {outcome.total}" if outcome.total else ""
    return (
        f"interrupted; {outcome.done}{of} {outcome.unit} are done, go on with: "
        f"{shlex.join(['drc', *again])}"
    )


def _print_outcome(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    failed = len(facts.pop("failed"))
    del facts["outputs"]
    for name, value in {**facts, "failed": failed}.items():
        print(f"{name.replace('_', ' ')}: {value}")


def _facts(outcome: Outcome, enlarger: Enlarger) -> dict[str, Any]:
    upscaler = enlarger.upscaler
    return {
        "network": upscaler.name,
        "scale": upscaler.scale,
        "device": upscaler.device,
        "tile": enlarger.tile_in_words,
        "overlap": enlarger.overlap,
        "self_ensemble": enlarger.self_ensemble,
        "total": outcome.total,
        "written": len(outcome.written),
        "present": outcome.present,
        "megapixels": round(outcome.pixels / 1e6, 3),
        "seconds": round(outcome.seconds, 3),
        "megapixels_per_second": round(outcome.megapixels_per_second, 4),
        "outputs": [str(path) for path in outcome.outputs],
        "failed": [{"image": name, "reason": reason} for name, reason in outcome.failed.items()],
    }

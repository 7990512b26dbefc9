"""`drc degrade`: a test set for blind super-resolution, made of HR images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from drc.cli import options as o
from drc.cli.display import Display
from drc.cli.errors import Interrupted

if TYPE_CHECKING:
    from drc.data.degrade import Kind

_Hr = Annotated[
    Path, typer.Argument(metavar="HR_FOLDER", help="HR images: a folder, or a DIV2K tree.")
]
_Out = Annotated[Path, typer.Argument(metavar="OUT_FOLDER", help="The new folder.")]
_Kernel = Annotated[
    str,
    typer.Option(
        help="Random Gaussian kernels, iso (round) or aniso (elongated); nearest: no blur, one "
        "pixel in scale x scale kept; blur: so kept after a 7x7 Gaussian."
    ),
]
_Scale = Annotated[int, typer.Option(help="HR side over LR side.")]
_Noise = Annotated[float, typer.Option(help="Noise on the LR images, deviation in 8-bit levels.")]
_Seed = Annotated[int, typer.Option(help="Seed of kernels and noise.")]


def command(
    hr_folder: _Hr,
    out_folder: _Out,
    kernel: _Kernel = "aniso",
    scale: _Scale = 4,
    noise: _Noise = 0.0,
    seed: _Seed = 0,
    quiet: o.Quiet = False,
    as_json: o.Json = False,
) -> None:
    """Make a blind test set, in the layout of DIV2KRK.

    HR images, blurred LR images, and the kernels that blurred them.

    Example: drc degrade benchmark/Set5/HR blind --kernel aniso --scale 4
    """
    display = Display(quiet)
    try:
        facts = _make(hr_folder, out_folder, kernel, scale, noise, seed, display)
    except KeyboardInterrupt:
        again = "nothing is kept, run the same command again"
        raise Interrupted(f"interrupted before {out_folder} was complete; {again}") from None
    finally:
        display.close()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")


def _make(
    hr_folder: Path,
    out_folder: Path,
    kernel: str,
    scale: int,
    noise: float,
    seed: int,
    display: Display,
) -> dict[str, Any]:
    """Build the set and describe it. Raises UsageError, DataError and RunError."""
    from drc.data.blind_set import build_blind_set
    from drc.data.degrade import Degradation

    degradation = Degradation(cast("Kind", kernel), scale, noise)
    display.log(f"LR images x{scale}, {degradation.in_words()} ...")
    pairs = build_blind_set(hr_folder, out_folder, degradation, seed, display)
    return {
        "folder": str(out_folder),
        "images": len(pairs),
        "scale": scale,
        "kernel": kernel,
        "kernel_size": degradation.kernel_size,
        "noise": noise,
        "seed": seed,
    }

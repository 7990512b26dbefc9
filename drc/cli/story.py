"""How a run came about, in words: for the report, and for the header of saved networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drc import __version__
from drc.cli.session import Session
from drc.networks.registry import get_preset
from drc.report.collect import INITIAL_WEIGHTS, Provenance
from drc.rounds import TWO_ROUNDS
from drc.training.distill import in_words

NO_BLUR = (
    "LR images for calibration and recovery are bicubic, but the network is for blurred ones; "
    "data.degradation iso or aniso blurs them"
)


def provenance(session: Session, step: str) -> dict[str, Any]:
    """What a saved network says about itself."""
    settings = session.settings
    return {
        "made_by": f"drc {__version__} {step}",
        "model": settings.model,
        "weights": weights_in_words(session),
        "ratio": settings.search.ratio,
        "budget": settings.search.budget,
        "strategy": settings.search.strategy,
        "importance": settings.prune.importance,
        "seed": settings.seed,
    }


def weights_in_words(session: Session) -> str:
    """Where the starting weights came from, as the report says it."""
    settings, preset = session.settings, session.traits.preset
    if settings.weights not in (None, "none"):
        return f"file {settings.weights}"
    if preset is None:
        return f"as {settings.model} makes them"
    if settings.weights == "none":
        return INITIAL_WEIGHTS
    source = get_preset(preset).weights[session.scale]
    return (
        f"shipped with drc ({source.packaged})" if source.packaged else f"published, {source.url}"
    )


def tell(session: Session) -> Provenance:
    """What the report cannot measure."""
    run, settings = session.run, session.settings
    steps = {name: facts for name, facts in run.read_steps().items() if name != "report"}
    notes = []
    if session.rounds == 2:
        first = run.first_round.read_steps()
        steps = {**{f"round 1 {name}": facts for name, facts in first.items()}, **steps}
        notes.append(TWO_ROUNDS)
    shared = _shared_images(session)
    if shared:
        notes.append(f"{shared} of the test images were also used for calibration and recovery")
    if session.lacks_blur:
        notes.append(NO_BLUR)
    return Provenance(
        command=session.command,
        weights=weights_in_words(session),
        importance=settings.prune.importance,
        calibration=steps.get("search", {}).get("calibration", calibration_in_words(session)),
        recovery=steps.get("finetune", {}).get("recovery", "not run"),
        steps=steps,
        files=_files(session),
        notes=tuple(notes),
    )


def _files(session: Session) -> dict[str, str]:
    run = session.run
    paths: dict[str, Path] = {
        "run folder": run.path,
        "settings": run.config_path,
        "plan": run.plan_path,
        "dual model": run.dual_path,
        "pruned network": run.pruned_path,
        "recovered network": run.finetuned_path,
        "metrics": run.metrics_path,
    }
    files = {name: str(path) for name, path in paths.items() if path.exists()}
    return {**files, "report": str(run.report_path), "report in Markdown": str(run.markdown_path)}


def _images_in_words(session: Session) -> str:
    folder = session.settings.data.data
    count = len(session.images)
    images = f"{count} images of {folder}" if folder else f"{count} bundled photos"
    blur = session.degradation
    return images if blur is None else f"{images}, {blur.in_words()}"


def calibration_in_words(session: Session) -> str:
    """What search and ranking look at under the present settings."""
    search = session.settings.search
    crop = f"{search.patch}x{search.patch}"
    return f"{search.patches} crops of LR {crop} from {_images_in_words(session)}"


def recovery_in_words(session: Session) -> str:
    """What recovery looks at under the present settings."""
    options = session.recovery
    before = f"{session.steps_before} and " if session.steps_before else ""
    teacher = options.teacher or "the dense network"
    return (
        f"{before}{options.steps} steps of {options.batch} crops of LR "
        f"{options.patch}x{options.patch} from {_images_in_words(session)}, "
        f"{in_words(teacher, options)}"
    )


def _shared_images(session: Session) -> int:
    used = {pair.hr.resolve() for pair in session.images}
    return sum(pair.hr.resolve() in used for pair in session.test_pairs)

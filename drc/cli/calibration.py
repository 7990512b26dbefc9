"""What the steps of a command look at: crops of the run's images, and its dual model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drc.cli.duals import find_dual, fitted_dual
from drc.cli.session import Session
from drc.core.distributed import on_first, own_device
from drc.data.crops import crop_loader
from drc.networks.dual import AnyDual
from drc.networks.dual_weights import load_dual
from drc.selection.calibration import Calibration, calibrate
from drc.store.networks import save_dual

_CALIBRATION_BATCH = 8


def calibration_of(session: Session, facts: dict[str, Any]) -> Calibration:
    """Network, groups, data and dual model; the steps of one command share it and its scores."""
    if session.calibration is None:
        session.calibration = calibrate(
            session.base,
            _crops(session),
            dual_of(session, facts, session.settings.search.dual_weight),
            session.settings.search,
            own_device(session.settings.device),
            session.settings.seed,
            session.display,
        )
    return session.calibration


def _crops(session: Session) -> Iterable[Any]:
    settings = session.settings
    batch = min(_CALIBRATION_BATCH, settings.search.patches)
    return crop_loader(
        session.images,
        session.scale,
        patch=settings.search.patch,
        batch=batch,
        steps=-(-settings.search.patches // batch),
        seed=settings.seed,
        workers=settings.data.workers,
        cache_bytes=settings.data.cache_bytes,
        degradation=session.degradation,
        on_skip=session.display.log,
    )


def dual_of(session: Session, facts: dict[str, Any], weight: float) -> AnyDual | None:
    """The dual model of the run: stored, given, shipped, or else fitted; then stored.

    None where the step has no use for it, its loss having no weight.
    """
    if not weight:
        facts["dual"] = "none: dual_weight is 0"
        return None
    dual, facts["dual"] = on_first(lambda: _find_dual(session))
    return dual


def _find_dual(session: Session) -> tuple[AnyDual, str]:
    """The dual model, on the CPU, and where it comes from."""
    settings, run, traits = session.settings, session.run, session.traits
    if run.dual_path.is_file():
        stored = "stored in the run folder" if session.rounds == 1 else "that of the first round"
        words = run.read_steps().get("search", {}).get("dual", stored)
        return load_dual(run.dual_path, traits.scale, traits.channels), words
    # Shipped dual models give back bicubic LR images.
    found = find_dual(settings.dual, settings.weights, traits, session.degradation is None)
    if found is not None:
        dual, words = found
    else:
        session.display.log("no trained dual model is given: fitting one on the calibration data")
        steps = settings.search.dual_steps
        dual = fitted_dual(session, _crops(session), steps)
        words = f"none was given, so one was fitted in {steps} steps on the calibration data"
    save_dual(dual, run.dual_path)
    return dual, words

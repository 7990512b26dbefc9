"""The four steps of a compression, each reading and writing the run folder of a session."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from typing import Any

from torch import nn

from drc import api
from drc.artifacts.atomic import write_text
from drc.artifacts.checkpoint import save, save_dual
from drc.artifacts.plan import Plan
from drc.cli.display import is_main_process
from drc.cli.session import Session, need
from drc.cli.story import NO_BLUR, calibration_in_words, provenance, recovery_in_words, tell
from drc.data.batches import BatchReader
from drc.data.crops import crop_loader
from drc.errors import RunError, UsageError
from drc.importance.base import Calibration
from drc.models.dual import AnyDual
from drc.models.dual_weights import dual_with, load_dual
from drc.models.registry import get_preset
from drc.models.weights import locate_dual
from drc.pipeline import Front, calibrate, cut_by_plan, plan_front
from drc.report.collect import Networks, collect
from drc.report.markdown import to_markdown
from drc.report.schema import Report
from drc.rounds import joined
from drc.strategies.budget import pose
from drc.training.dual_fit import fit_dual

_CALIBRATION_BATCH = 8


def run_search(session: Session) -> Front:
    """Find the widths; writes plan.yaml, and dual.safetensors.

    For several ratios `plans/` gets a plan each, and plan.yaml is that of the first which can be
    reached, from then on the ratio of the run.

    Raises:
        BudgetError: no plan meets the budget, or any of several.
        DrcError: as the networks, images and files raise it.
    """
    settings, run = session.settings, session.run
    if session.lacks_blur:
        session.display.log(f"note: {NO_BLUR}")
    with session.step("search") as facts:
        calibration = _calibration(session, facts)
        notes = [f"dual model: {facts['dual']}"]
        if session.whole is not None:  # rather now than after the first recovery
            pose(calibration, session.whole.settings.search, []).check_reachable()
        front = plan_front(session.base, calibration, session.search, notes)
        if settings.search.front:
            for plan in front.plans:
                plan.save(run.front_plan_path(plan.budget.ratio))
            session.take_ratio(front.plans[0].budget.ratio)
        front.plans[0].save(run.plan_path)
        facts.update(strategy=settings.search.strategy, calibration=calibration_in_words(session))
    return front


def run_prune(session: Session) -> nn.Module:
    """Rank and remove the channels; writes pruned.safetensors.

    Raises:
        RunError: there is no plan, or the run has gone on past pruning.
        DrcError: as the networks, images and files raise it.
    """
    settings, run = session.settings, session.run
    plan = _chosen_plan(session)
    for path in (run.finetuned_path, run.checkpoint_path):
        if path.exists():
            raise RunError(
                f"{run.path} already holds the recovery of its pruned network ({path.name}); "
                "start another run with `drc search`"
            )
    with session.step("prune") as facts:
        calibration = _calibration(session, facts)
        calibration.settings = settings.prune
        pruned = cut_by_plan(session.base, calibration, plan, settings.prune.importance)
        if settings.search.front:
            plan.save(run.plan_path)
        save(pruned, run.pruned_path, provenance(session, "prune"))
        facts.update(importance=settings.prune.importance, reconstruct=settings.prune.reconstruct)
    return pruned


def run_finetune(session: Session, resume: bool = False) -> nn.Module:
    """Recover the quality; writes finetuned.safetensors, last.ckpt and metrics.jsonl.

    Args:
        session: the run.
        resume: go on from last.ckpt where there is one.

    Raises:
        RunError: nothing is pruned yet, an unfinished recovery would be lost, or the checkpoint
            does not fit.
        TrainingError: the loss became NaN; the last good checkpoint is kept.
    """
    settings, run = session.settings, session.run
    need(run.pruned_path, "pruned network", "drc prune")
    unfinished = run.checkpoint_path.exists() and not session.finished("finetune")
    if unfinished and not resume:
        raise RunError(
            f"{run.path} holds an unfinished recovery; add --resume to go on with it, "
            f"or delete {run.checkpoint_path.name} to start over"
        )
    with session.step("finetune", goes_on=resume) as facts:
        options, before = session.recovery, session.steps_before
        network = api.finetune(
            session.saved(run.pruned_path),
            lambda start: crop_loader(
                session.train_pairs,
                session.scale,
                patch=options.patch,
                batch=options.batch,
                steps=before + options.steps,
                seed=settings.seed,
                start=before + start,  # on crops that the first round has not seen
                workers=settings.data.workers,
                degradation=session.degradation,
                on_skip=session.display.log,
            ),
            teacher=session.teacher if options.distill or options.features else None,
            dual=_dual(session, facts, options.dual_weight),
            settings=options,
            device=settings.device,
            seed=settings.seed,
            checkpoint=run.checkpoint_path,
            resume=unfinished,
            metrics=run.metrics_path,
            progress=session.display,
        )
        if is_main_process():
            save(network, run.finetuned_path, provenance(session, "finetune"))
        facts.update(steps=options.steps, recovery=recovery_in_words(session))
    return network


def run_report(session: Session) -> Report:
    """Measure before and after; writes report.json, report.md and, for blind SR, kernels.png.

    Raises:
        RunError: nothing is pruned yet.
        DrcError: as the networks, images and files raise it.
    """
    settings, run = session.settings, session.run
    plan = Plan.load(need(run.plan_path, "plan", "drc search"))
    if session.rounds == 2:
        plan = joined(Plan.load(run.first_round.plan_path), plan, settings.search.ratio)
    need(run.pruned_path, "pruned network", "drc prune")
    finetuned = run.finetuned_path.exists()
    with session.step("report"):
        start = time.perf_counter()
        report = collect(
            Networks(
                before=session.dense,
                pruned=session.saved(run.pruned_path),
                recovered=session.saved(run.finetuned_path) if finetuned else None,
            ),
            plan,
            tell(session),
            test=session.test_data,
            lr_size=settings.report.lr_size,
            runs=settings.report.runs,
            inference=session.inference,
            device=settings.device,
            kernels=run.kernels_path,
            progress=session.display,
        )
        report.steps["report"] = {"seconds": round(time.perf_counter() - start, 3)}
        write_text(run.report_path, report.to_json() + "\n")
        write_text(run.markdown_path, to_markdown(report))
    return report


def run_all(session: Session, resume: bool = False) -> Report:
    """The steps of one round or two, then the report; with `resume`, those not done yet."""
    if session.rounds == 2:
        _run_round(session.first_round(), resume)
        if not session.run.dual_path.exists() and session.run.first_round.dual_path.exists():
            shutil.copyfile(session.run.first_round.dual_path, session.run.dual_path)
    _run_round(session, resume)
    return run_report(session)


def _run_round(session: Session, resume: bool) -> None:
    run = session.run
    if not (resume and run.plan_path.exists()):
        run_search(session)
    if not (resume and run.pruned_path.exists()):
        run_prune(session)
    if not (resume and session.finished("finetune")):
        run_finetune(session, resume)


def _chosen_plan(session: Session) -> Plan:
    """plan.yaml, or of the plans for several ratios the one that the settings now name."""
    run, search = session.run, session.settings.search
    plan = Plan.load(need(run.plan_path, "plan", "drc search"))
    if not search.front or plan.budget.ratio == search.ratio:
        return plan
    path = run.front_plan_path(search.ratio)
    if not path.is_file():
        there = [str(r) for r in search.front if run.front_plan_path(r).is_file()]
        raise UsageError(
            f"{run.path} has no plan for ratio {search.ratio}; it has those for {', '.join(there)}"
        )
    return Plan.load(path)


def _calibration(session: Session, facts: dict[str, Any]) -> Calibration:
    """Network, groups, data and dual model; the steps of one command share it and its scores."""
    if session.calibration is None:
        session.calibration = calibrate(
            session.base,
            _crops(session),
            _dual(session, facts, session.settings.search.dual_weight),
            session.settings.search,
            session.settings.device,
            session.settings.seed,
            session.display,
        )
    return session.calibration


def _crops(session: Session) -> Iterable[Any]:
    settings = session.settings
    batch = min(_CALIBRATION_BATCH, settings.search.patches)
    return crop_loader(
        session.train_pairs,
        session.scale,
        patch=settings.search.patch,
        batch=batch,
        steps=-(-settings.search.patches // batch),
        seed=settings.seed,
        workers=settings.data.workers,
        degradation=session.degradation,
        on_skip=session.display.log,
    )


def _dual(session: Session, facts: dict[str, Any], weight: float) -> AnyDual | None:
    """The dual model of the run: stored, given, shipped, or else fitted; then stored.

    None where the step has no use for it, its loss having no weight.
    """
    settings, run, traits = session.settings, session.run, session.traits
    if not weight:
        facts["dual"] = "none: dual_weight is 0"
        return None
    if run.dual_path.is_file():
        stored = "stored in the run folder" if session.rounds == 1 else "that of the first round"
        facts["dual"] = run.read_steps().get("search", {}).get("dual", stored)
        return load_dual(run.dual_path, traits.scale, traits.channels)
    shipped = None
    bicubic = session.degradation is None  # shipped dual models give back LR images of that kind
    if settings.weights is None and traits.preset is not None and bicubic:
        shipped = locate_dual(get_preset(traits.preset), traits.scale)
    given = settings.weights if settings.weights not in (None, "default", "none") else None
    if settings.dual is not None:
        dual = load_dual(settings.dual, traits.scale, traits.channels)
        words = settings.dual
    elif given is not None and (found := dual_with(given, traits.scale, traits.channels)):
        dual, words = found
    elif shipped is not None:
        dual, words = load_dual(shipped, traits.scale), "shipped with drc"
    else:
        session.display.log("no trained dual model is given: fitting one on the calibration data")
        dual = fit_dual(
            BatchReader(
                _crops(session), traits.scale, traits.value_range, "cpu", channels=traits.channels
            ),
            traits.scale,
            traits.value_range,
            steps=settings.search.dual_steps,
            device=settings.device,
            seed=settings.seed,
            progress=session.display,
        )
        steps = settings.search.dual_steps
        words = f"none was given, so one was fitted in {steps} steps on the calibration data"
    facts["dual"] = words
    if is_main_process():
        save_dual(dual, run.dual_path)
    return dual

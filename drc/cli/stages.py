"""The four steps of a compression, each reading and writing the run folder of a session."""

from __future__ import annotations

import shutil
import time

from torch import nn

from drc import api
from drc.cli.calibration import calibration_of, dual_of
from drc.cli.display import is_main_process
from drc.cli.session import Session, need
from drc.cli.story import NO_BLUR, calibration_in_words, provenance, recovery_in_words, tell
from drc.core.distributed import on_first, process_share
from drc.core.errors import RunError, UsageError
from drc.core.files import write_text
from drc.data.crops import crop_loader
from drc.data.inventory import check_inventory, named, write_inventory
from drc.pipeline import Front, check_goal, cut_by_plan, plan_front
from drc.report.collect import Networks, collect
from drc.report.markdown import to_markdown
from drc.report.schema import Report
from drc.rounds import joined
from drc.store.networks import save
from drc.store.plan import Plan
from drc.store.run_folder import RunFolder


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
        calibration = calibration_of(session, facts)
        notes = [f"dual model: {facts['dual']}"]
        if session.whole is not None:  # rather now than after the first recovery
            check_goal(calibration, session.whole.settings.search)
        front = plan_front(session.base, calibration, session.search, notes)
        if settings.search.front:
            session.take_ratio(front.plans[0].budget.ratio)
        if is_main_process():
            for plan in front.plans if settings.search.front else ():
                plan.save(run.front_plan_path(plan.budget.ratio))
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
    plan = on_first(lambda: _plan_to_prune_by(session))
    with session.step("prune") as facts:
        calibration = calibration_of(session, facts)
        pruned = cut_by_plan(session.base, calibration, plan, settings.prune)
        if is_main_process():
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
    unfinished = on_first(lambda: run.checkpoint_path.exists() and not session.finished("finetune"))
    if unfinished and not resume:
        raise RunError(
            f"{run.path} holds an unfinished recovery; add --resume to go on with it, "
            f"or delete {run.checkpoint_path.name} to start over"
        )
    on_first(lambda: _keep_track(session, unfinished))
    with session.step("finetune", goes_on=resume) as facts:
        options, before = session.recovery, session.steps_before
        network = api.finetune(
            session.saved(run.pruned_path),
            lambda start: crop_loader(
                session.images,
                session.scale,
                patch=options.patch,
                batch=options.batch,
                steps=before + options.steps,
                seed=settings.seed,
                start=before + start,  # on crops that the first round has not seen
                workers=settings.data.workers,
                cache_bytes=settings.data.cache_bytes,
                degradation=session.degradation,
                share=process_share(),
                on_skip=session.display.log,
            ),
            teacher=session.teacher if options.distill or options.features else None,
            dual=dual_of(session, facts, options.dual_weight),
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


def _keep_track(session: Session, goes_on: bool) -> None:
    """List the training images, or see that they are still those listed. Raises RunError."""
    path, sources = session.run.inventory_path, [named(pair) for pair in session.images]
    if goes_on and path.exists():
        check_inventory(path, sources)
    else:
        write_inventory(path, sources)


def run_report(session: Session) -> Report:
    """Measure before and after; writes report.json, report.md and, for blind SR, kernels.png.

    The first process measures, while others wait.

    Raises:
        RunError: nothing is pruned yet.
        DrcError: as the networks, images and files raise it.
    """
    return on_first(lambda: _measure(session))


def run_all(session: Session, resume: bool = False) -> Report:
    """The steps of one round or two, then the report; with `resume`, those not done yet."""
    if session.rounds == 2:
        _run_round(session.first_round(), resume)
        on_first(lambda: _share_dual(session.run))
    _run_round(session, resume)
    return run_report(session)


def _run_round(session: Session, resume: bool) -> None:
    run = session.run
    if not (resume and on_first(run.plan_path.exists)):
        run_search(session)
    if not (resume and on_first(run.pruned_path.exists)):
        run_prune(session)
    if not (resume and on_first(lambda: session.finished("finetune"))):
        run_finetune(session, resume)


def _share_dual(run: RunFolder) -> None:
    """The second round goes on with the dual model of the first."""
    if not run.dual_path.exists() and run.first_round.dual_path.exists():
        shutil.copyfile(run.first_round.dual_path, run.dual_path)


def _measure(session: Session) -> Report:
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
                before=session.network,
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


def _plan_to_prune_by(session: Session) -> Plan:
    """The chosen plan of a run that has not gone on past pruning."""
    plan, run = _chosen_plan(session), session.run
    for path in (run.finetuned_path, run.checkpoint_path):
        if path.exists():
            raise RunError(
                f"{run.path} already holds the recovery of its pruned network ({path.name}); "
                "start another run with `drc search`"
            )
    return plan


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

"""From options to a session: new run folders and old ones. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from drc.cli.display import Display, is_main_process
from drc.cli.options import overrides
from drc.core.errors import UsageError
from drc.settings import RunSettings, leaves, load_settings, refused
from drc.store.run_folder import RunFolder

if TYPE_CHECKING:
    from drc.cli.session import Session
    from drc.cli.training import TrainSession


@contextmanager
def new_run(command: str, params: Mapping[str, Any]) -> Iterator[Session]:
    """A session in a new run folder, made once the inputs are known to be usable.

    With `--resume` it is the session of an existing run. A run that fails before it has a plan
    leaves no folder, which later commands would take for the newest run.
    """
    if params.get("resume"):
        with old_run(command, params, same_settings=True) as session:
            yield session
        return
    if params.get("run") is not None:
        raise UsageError("--run is for --resume; name a new run's folder with --output")
    settings = load_settings(params.get("config"), overrides(params))
    with _session(settings, params, command) as session:
        from drc.core.distributed import on_first

        check(session)
        # Later steps refuse a network that has changed its scale meanwhile.
        fixed = {"scale": session.scale, "rounds": session.rounds}
        settings = session.settings = settings.model_copy(update=fixed)
        new = settings.output, session.label, session.scale, session.plain_settings()
        session.folder = on_first(lambda: RunFolder.create(*new))
        session.display.log(f"run folder: {session.run.path}")
        try:
            yield session
        except Exception:
            if is_main_process():
                _discard_without_plan(session.run)
            raise


@contextmanager
def old_run(
    command: str,
    params: Mapping[str, Any],
    same_settings: bool = False,
    checked: bool = True,
) -> Iterator[Session]:
    """A session in the run folder of `--run`, or the newest.

    Args:
        command: such as `drc prune`.
        params: the options given.
        same_settings: refuse options that differ from what the run was started with.
        checked: see first that network and images can be used.
    """
    if same_settings and params.get("output") is not None:
        raise UsageError("--output names a new run; go on with an old one by --run")
    run = RunFolder.find(params.get("run"))
    stored = load_settings(None, {}, run.read_config())
    settings = load_settings(params.get("config"), overrides(params), stored.model_dump())
    wrong = refused(stored, settings, command, resume=same_settings)
    if wrong and same_settings:
        raise UsageError(
            f"{run.path} was started with another {wrong[0]}; drop that option to resume it, "
            "name the run to resume by --run DIR, or start a new one without --resume"
        )
    if wrong:
        raise UsageError(
            f"{run.path} is a run with {wrong[0]} {leaves(stored)[wrong[0]]}; start another with "
            "`drc search`"
        )
    with _session(settings, params, command) as session:
        session.folder = run
        if checked:
            check(session)
        changes = settings != stored and is_main_process()
        resumable = command == "drc finetune"
        if changes and resumable:
            run.write_config(session.plain_settings())  # what --resume goes on with
        yield session
        if changes and not resumable:  # a step that failed changes nothing
            run.write_config(session.plain_settings())


@contextmanager
def _session(settings: RunSettings, params: Mapping[str, Any], command: str) -> Iterator[Session]:
    from drc.cli.session import Session  # only now: a wrong option is told without torch's delay
    from drc.core.distributed import together

    display = Display(bool(params["quiet"]))
    try:
        with together(settings.device):
            yield Session(settings, display, command)
    finally:
        display.close()


def check(session: Session | TrainSession) -> None:
    """Check the inputs in all processes, the first going ahead, as it may have to download."""
    from drc.core.distributed import on_first

    on_first(session.check)
    if not is_main_process():
        session.check()


def _discard_without_plan(run: RunFolder) -> None:
    if run.first_round.path.is_dir():
        _discard_without_plan(run.first_round)
    if run.plan_path.exists() or run.first_round.path.is_dir():
        return
    with suppress(OSError):
        for path in (run.config_path, run.steps_path, run.dual_path):
            path.unlink(missing_ok=True)
        if run.front_path.is_dir():
            for path in run.front_path.iterdir():
                path.unlink()
            run.front_path.rmdir()
        run.path.rmdir()

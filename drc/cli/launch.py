"""From options to a session: new run folders and old ones. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from drc.cli.display import Display, is_main_process
from drc.cli.errors import Interrupted
from drc.cli.options import overrides, training_overrides
from drc.core.errors import UsageError
from drc.settings import RunSettings, TrainRun, leaves, load_settings, refused
from drc.store.run_folder import RunFolder

if TYPE_CHECKING:
    from drc.cli.session import BaseSession, Session

_KINDS = {"train": "training", "adapt": "adaptation"}


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
    with _session(_compression, settings, params, command) as session:
        check(session)
        # Later steps refuse a network that has changed its scale meanwhile.
        session.settings = session.settings.model_copy(update={"scale": session.scale})
        with _in_new_folder(session):
            yield session


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
    with _alone(run):
        stored = load_settings(None, {}, run.read_config())
        settings = load_settings(params.get("config"), overrides(params), stored.model_dump())
        _refuse_changes(run, stored, settings, command, same_settings)
        with _session(_compression, settings, params, command) as session:
            session.folder = run
            if checked:
                check(session)
            yield session


@contextmanager
def training_run(name: str, kind: type[TrainRun], params: Mapping[str, Any]) -> Iterator[Any]:
    """A `TrainSession` in a new run folder, or with `--resume` in that of `--run`, or the newest.

    A run that fails before its first checkpoint leaves no folder.

    Args:
        name: of the command, `train` or `adapt`.
        kind: of its settings.
        params: the options given.
    """
    run, base = None, {}
    if params["resume"]:
        if params["output"] is not None:
            raise UsageError("--output names a new run; go on with an old one by --run")
        run = RunFolder.find(params["run"], kind=_KINDS[name])
        base = run.read_config()
    elif params["run"] is not None:
        raise UsageError("--run is for --resume; name a new run's folder with --output")
    settings = load_settings(params["config"], training_overrides(params), base, kind)
    if run is not None:
        _refuse_other_training(run, load_settings(None, {}, base, kind), settings)
    with (
        nullcontext() if run is None else _alone(run),
        _session(_training(name), settings, params, f"drc {name}") as session,
    ):
        session.folder = run
        check(session)
        with nullcontext() if run is not None else _in_new_folder(session, _KINDS[name]):
            yield session


def check(session: BaseSession) -> None:
    """Check the inputs in all processes, the first going ahead, as it may have to download."""
    from drc.core.distributed import on_first

    on_first(session.check)
    if not is_main_process():
        session.check()


def _refuse_changes(
    run: RunFolder, stored: RunSettings, settings: RunSettings, command: str, resume: bool
) -> None:
    wrong = refused(stored, settings, command, resume)
    if wrong and resume:
        raise UsageError(
            f"{run.path} was started with another {wrong[0]}; drop that option to resume it, "
            "name the run to resume by --run DIR, or start a new one without --resume"
        )
    if wrong:
        raise UsageError(
            f"{run.path} is a run with {wrong[0]} {leaves(stored)[wrong[0]]}; start another with "
            "`drc search`"
        )


def _refuse_other_training(run: RunFolder, stored: TrainRun, settings: TrainRun) -> None:
    before, after = leaves(stored), leaves(settings)
    changed = refused(stored, settings, resume=True)
    if changed:
        listed = ", ".join(f"{key} {before[key]} then, {after[key]} now" for key in changed)
        raise UsageError(
            f"{run.path} was started with other settings: {listed}; drop these options to resume "
            "it, or start a new run without --resume"
        )


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """A block in which no other command writes into the run; the first process has the lock."""
    with run.locked() if is_main_process() else nullcontext():
        yield


@contextmanager
def _in_new_folder(session: BaseSession, kind: str = "compression") -> Iterator[None]:
    """Make the session's run folder, which goes again if nothing of worth comes of the block."""
    from drc.core.distributed import on_first

    run = session.folder = on_first(lambda: session.new_folder(kind))
    with _alone(run):
        session.display.log(f"run folder: {run.path}")
        try:
            yield
        except Exception:
            if is_main_process():
                run.discard()
            raise


@contextmanager
def _session(
    make: Callable[[], type[Any]], settings: Any, params: Mapping[str, Any], command: str
) -> Iterator[Any]:
    from drc.core.distributed import together  # a wrong option is told without torch's delay

    display = Display(bool(params["quiet"]))
    session = make()(settings, display, command)
    try:
        with together(settings.device):
            yield session
    except KeyboardInterrupt:
        if session.folder is None or session.running is None:
            raise
        resume = "" if command in ("drc prune", "drc report") else " --resume"
        raise Interrupted(
            f"interrupted during {session.running}; go on with: "
            f"{command}{resume} --run {session.run.path}"
        ) from None
    finally:
        display.close()


def _compression() -> type[Session]:
    from drc.cli.session import Session

    return Session


def _training(name: str) -> Callable[[], type[Any]]:
    def find() -> type[Any]:
        if name == "adapt":
            from drc.cli.adaptation import AdaptSession

            return AdaptSession
        from drc.cli.training import TrainSession

        return TrainSession

    return find

"""From options to the session of a training or an adaptation. Nothing here imports torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from drc.cli.display import Display, is_main_process
from drc.cli.launch import check
from drc.cli.options import training_overrides
from drc.core.errors import UsageError
from drc.settings import TrainRun, leaves, load_settings, refused
from drc.store.run_folder import RunFolder

if TYPE_CHECKING:
    from drc.cli.training import TrainSession

_KINDS = {"train": "training", "adapt": "adaptation"}


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
        _refuse_changes(run, load_settings(None, {}, base, kind), settings)
    display = Display(bool(params["quiet"]))
    try:
        session = _session_class(name)(settings, display, f"drc {name}", run)
        from drc.core.distributed import on_first, together

        with together(settings.device):
            check(session)
            try:
                if run is None:
                    session.folder = on_first(lambda: session.new_folder(_KINDS[name]))
                display.log(f"run folder: {session.run.path}")
                yield session
            except Exception:
                if run is None and session.folder is not None and is_main_process():
                    _discard_without_checkpoint(session.folder)
                raise
    finally:
        display.close()


def _session_class(name: str) -> type[TrainSession]:
    """Only when it is needed: a wrong option is told without torch's delay."""
    if name == "adapt":
        from drc.cli.adaptation import AdaptSession

        return AdaptSession
    from drc.cli.training import TrainSession

    return TrainSession


def _refuse_changes(run: RunFolder, stored: TrainRun, settings: TrainRun) -> None:
    changed = refused(stored, settings, resume=True)
    if changed:
        before, after = leaves(stored), leaves(settings)
        listed = ", ".join(f"{key} {before[key]} then, {after[key]} now" for key in changed)
        raise UsageError(
            f"{run.path} was started with other settings: {listed}; drop these options to resume "
            "it, or start a new run without --resume"
        )


def _discard_without_checkpoint(run: RunFolder) -> None:
    if run.checkpoint_path.exists():
        return
    with suppress(OSError):
        for path in (
            run.config_path, run.steps_path, run.dual_path, run.inventory_path, run.metrics_path,
            run.start_dual_path, run.estimate_path,
        ):  # fmt: skip
            path.unlink(missing_ok=True)
        shutil.rmtree(run.path / "tensorboard", ignore_errors=True)
        run.path.rmdir()

"""The state of one compression in a run folder, which later commands go on with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from drc.core.errors import UsageError
from drc.core.files import write_text
from drc.data.inventory import Source, check_inventory, write_inventory
from drc.networks.dual import AnyDual, load_dual
from drc.store.networks import save, save_dual
from drc.store.plan import Plan
from drc.store.run_folder import STEPS, RunFolder, missing
from drc.store.state import Facts, Store

_MADE = {"prune": "pruned network", "finetune": "network"}


class FolderStore(Store):
    """State in a run folder, which later commands go on with.

    Args:
        run: the folder.
        open_network: makes a network of one of its files.
    """

    def __init__(self, run: RunFolder, open_network: Callable[[Path], nn.Module]) -> None:
        self.run = run
        self._open_network = open_network
        self._earlier: dict[str, dict[str, Any]] = {}

    @property
    def name(self) -> str:
        return str(self.run.path)

    def records(self) -> dict[str, dict[str, Any]]:
        return self.run.read_steps()

    def begin(self, step: str, facts: Facts, settings: Facts, goes_on: bool = False) -> None:
        run = self.run
        self._earlier = self.records()
        if not goes_on:
            shutil.rmtree(run.previous_path, ignore_errors=True)
            # First what --resume would go on from, then the record, then results: whenever this
            # is cut short, what the record says is true of the files.
            self._put_aside(self._training_files_since(step))
            self._put_aside([run.config_path], copy=True)
            run.write_config(dict(settings))
        run.record(step, {**facts, "finished": False})
        if not goes_on:
            self._put_aside(self._results_since(step))

    def finish(self, step: str, facts: Facts) -> None:
        self.run.record(step, {**facts, "finished": True})
        shutil.rmtree(self.run.previous_path, ignore_errors=True)

    def abandon(self, step: str, facts: Facts, resumable: bool) -> None:
        begun, aside = {step: {**facts, "finished": False}}, self.run.previous_path
        if resumable or self.run.checkpoint_path.exists():
            self.run.record(step, begun[step])
            return
        for path in [path for path in aside.glob("**/*") if path.is_file()]:
            path.replace(self.run.path / path.relative_to(aside))
        self.run.restore_steps({**self._earlier, **({} if step in self._earlier else begun)})
        shutil.rmtree(aside, ignore_errors=True)

    def _put_aside(self, paths: Sequence[Path], copy: bool = False) -> None:
        for path in paths:
            if path.exists():
                aside = self.run.previous_path / path.relative_to(self.run.path)
                aside.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, aside) if copy else path.replace(aside)

    def save_plans(self, plans: Sequence[Plan], several: bool) -> None:
        for plan in plans if several else ():
            plan.save(self.run.plan_of_ratio(plan.budget.ratio))
        plans[0].save(self.run.plan_path)

    def choose(self, plan: Plan) -> None:
        plan.save(self.run.plan_path)

    def plan(self, ratio: float | None = None) -> Plan:
        run = self.run
        if not self.finished("search"):
            raise missing(run.plan_path, "plan", "drc search")
        plan = Plan.load(run.plan_path)
        if ratio in (None, plan.budget.ratio):
            return plan
        path = run.plan_of_ratio(ratio)
        if not path.is_file():
            plans = map(Plan.load, run.plans_path.glob("*.yaml"))
            there = sorted((plan.budget.ratio for plan in plans), reverse=True)
            raise UsageError(
                f"{run.path} has no plan for ratio {ratio}; it has those for "
                f"{', '.join(map(str, there)) or plan.budget.ratio}"
            )
        return Plan.load(path)

    def save_dual(self, dual: AnyDual) -> None:
        save_dual(dual, self.run.dual_path)

    def dual(self, scale: int, channels: int) -> AnyDual | None:
        path = self.run.dual_path
        return load_dual(path, scale, channels) if path.is_file() else None

    def save_network(self, step: str, network: nn.Module, provenance: Facts) -> None:
        save(network, self._path_of(step), provenance)

    def network(self, step: str) -> nn.Module:
        path = self._path_of(step)
        if not self.finished(step):
            raise missing(path, _MADE[step], f"drc {step}")
        return self._open_network(path)

    def finished(self, step: str) -> bool:
        return self.run.finished(step)

    def save_settings(self, settings: Facts) -> None:
        self.run.write_config(dict(settings))

    def save_report(self, json: str, markdown: str) -> None:
        write_text(self.run.report_path, json)
        write_text(self.run.markdown_path, markdown)

    def files(self) -> dict[str, Path]:
        run = self.run
        return {
            "run folder": run.path,
            "settings": run.config_path,
            "plan": run.plan_path,
            "dual model": run.dual_path,
            "pruned network": run.pruned_path,
            "recovered network": run.finetuned_path,
            "checkpoint": run.checkpoint_path,
            "metrics": run.metrics_path,
            "blur kernels": run.kernels_path,
            "report": run.report_path,
            "report in Markdown": run.markdown_path,
        }

    def unfinished(self) -> bool:
        return self.run.checkpoint_path.exists() and not self.finished("finetune")

    def list_images(self, sources: Sequence[Source], goes_on: bool) -> None:
        path = self.run.inventory_path
        if goes_on and path.exists():
            check_inventory(path, sources)
        else:
            write_inventory(path, sources)

    def _path_of(self, step: str) -> Path:
        path = self.run.result_of(step)
        assert path is not None  # only steps that make networks are asked for
        return path

    def _training_files_since(self, step: str) -> list[Path]:
        run = self.run
        before = STEPS.index(step) <= STEPS.index("finetune")
        return [run.checkpoint_path, run.metrics_path] if before else []

    def _results_since(self, step: str) -> list[Path]:
        """Of the step and of those after it."""
        run = self.run
        results = {
            "search": [run.plan_path, *run.plans_path.glob("*.yaml")],
            "prune": [run.pruned_path, run.report_path, run.markdown_path, run.page_path],
            "finetune": [run.finetuned_path, run.report_path, run.markdown_path, run.page_path],
        }
        since = STEPS[STEPS.index(step) :]
        return [path for name in since for path in results.get(name, [])]

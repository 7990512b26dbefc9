"""The driver: search, prune, recover and report, on one state.

The Python interface, the command line and the benchmarks all go through `Compression`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn

from drc import __version__
from drc.core.distributed import is_first, on_first, own_device
from drc.core.errors import DrcError, RunError
from drc.core.runtime import Progress, seed_everything
from drc.data.inventory import lines_of
from drc.data.sources import Crops, GivenCrops
from drc.evaluation.inference import Inference
from drc.networks.blind import KernelEstimator
from drc.networks.dual import AnyDual
from drc.networks.traits import get_traits
from drc.report.collect import Networks, Origin, Provenance, TestData, collect
from drc.report.schema import Report
from drc.report.text import to_markdown
from drc.selection.calibration import Calibration, calibrate
from drc.selection.criteria.base import get_criterion
from drc.selection.planning import Plans, check_plan, cut_by_plan, search_plans
from drc.selection.widths.base import get_strategy
from drc.settings import RunSettings, identity
from drc.settings.base import Settings
from drc.store.plan import Plan, fingerprint
from drc.store.state import MemoryStore, Store
from drc.training.distill import in_words
from drc.training.dual_fit import fit_to_crops
from drc.training.loop import TrainingFiles, run_training

NO_BLUR = (
    "LR images for calibration and recovery are bicubic, but the network is for blurred ones; "
    "data.degradation iso or aniso blurs them"
)


class Compression:
    """One compression of one network, step by step.

    Under a launcher every process makes one alike and calls the same steps; the first process
    decides, measures and writes.

    Args:
        network: the dense network, with its traits; it is not changed.
        crops: the training images, or a loader of batches `(lr, hr)`.
        settings: of every step.
        store: where the steps leave their results; None for memory.
        dual: a trained dual model; None for the store's, or for one fitted to the crops.
        teacher: what recovery learns from; None for the dense network.
        test: what the report measures on, as `drc.evaluate` takes it; None for no PSNR.
        origin: in words.
        progress: told about every crop, step and image.
        log: given a line about what begins and ends.

    Attributes:
        running: the step that is under way, or None.
    """

    def __init__(
        self,
        network: nn.Module,
        crops: Crops | Iterable[Any],
        settings: RunSettings,
        store: Store | None = None,
        *,
        dual: AnyDual | None = None,
        teacher: nn.Module | None = None,
        test: TestData | None = "bundled",
        origin: Origin | None = None,
        progress: Progress | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        check_names(settings)
        self.network, self.settings = network, settings
        self.crops = crops if isinstance(crops, Crops) else GivenCrops(crops)
        self.store = store or MemoryStore()
        self.teacher, self.test = teacher, test
        self.origin = origin or Origin()
        self.progress = progress
        self.running: str | None = None
        self._log = log or (lambda _: None)
        self._given_dual = dual
        self._dual: tuple[AnyDual, str] | None = None
        self._calibration: Calibration | None = None

    def calibration(self, uses_data: bool = True) -> Calibration:
        """Network, groups, crops and dual model, which search and ranking share.

        Args:
            uses_data: whether whoever asks looks at the crops, and so needs the dual model.
        """
        settings, known = self.settings, self._calibration
        dual = self.dual(settings.search.dual_weight) if uses_data else None
        if known is None or (dual is not None and known.dual is None):
            known = self._calibration = calibrate(
                self.network,
                self.crops.calibration(settings.search),
                dual,
                settings.search,
                own_device(settings.device),
                settings.seed,
                self.progress,
            )
        return known

    def dual(self, weight: float) -> AnyDual | None:
        """The dual model: given, stored, or else fitted to the crops; then stored.

        None where its loss has no weight.

        Raises:
            DataError: the crops cannot be used.
        """
        if not weight:
            return None
        if self._dual is None:
            self._dual = on_first(self._find_dual)
        return self._dual[0]

    def search(self, resume: bool = False) -> Plans:
        """Find the widths, for each of the ratios.

        Args:
            resume: a search that is finished already gives its plans.

        Raises:
            BudgetError: none of the ratios can be reached.
            DrcError: as networks, images and files raise it.
        """
        search = self.settings.search
        if resume and on_first(lambda: self.store.finished("search")):
            self._log("the search is finished already")
            return Plans(*on_first(lambda: self.store.plans(search.ratios)))
        words = self.crops.calibration_in_words(search)
        with self._step("search", {"strategy": search.strategy, "calibration": words}) as facts:
            if self.lacks_blur:
                self._log(f"note: {NO_BLUR}")
            calibration = self.calibration(not get_strategy(search.strategy).data_free)
            notes = self._dual_notes(facts)
            found = search_plans(self.network, calibration, search, notes)
            if is_first():
                self.store.save_plans(found.plans, bool(search.front))
            self._take_ratio(found.plans[0].budget.ratio)
        return found

    def prune(self, plan: Plan | None = None) -> nn.Module:
        """Rank the channels, remove those that the plan has no room for, and refit.

        Args:
            plan: of this network; None for the one of the store for the ratio of the settings.

        Raises:
            RunError: there is no plan, it is of other weights, or a recovery would be lost.
            DrcError: as networks, images and files raise it.
        """
        options = self.settings.prune
        chosen = on_first(lambda: self._plan_to_prune_by(plan))
        facts = {"importance": options.importance, "reconstruct": options.reconstruct}
        with self._step("prune", facts):
            calibration = self.calibration(not get_criterion(options.importance).data_free)
            pruned = cut_by_plan(self.network, calibration, chosen, options)
            self._take_ratio(chosen.budget.ratio)
            if is_first():
                self.store.choose(chosen)
            self._save("prune", pruned)
        return pruned

    def recover(self, resume: bool = False, overwrite: bool = False) -> nn.Module:
        """Recover the quality of the pruned network.

        Args:
            resume: go on from the checkpoint of an attempt that was cut short; an attempt that
                came to its end gives its network.
            overwrite: start over where a recovery is finished already.

        Raises:
            RunError: nothing is pruned yet, a recovery would be lost, or the checkpoint or its
                images are not those of this recovery.
            TrainingError: the loss became NaN; the last checkpoint is kept.
        """
        options, store = self.settings.recovery, self.store
        pruned = store.network("prune")
        known = on_first(lambda: self._identity_of_recovery(pruned))
        record = on_first(lambda: store.records().get("finetune", {}))
        same = record.get("identity") == known
        if resume and same and on_first(lambda: store.finished("finetune")):
            self._log("the recovery is finished already")
            return store.network("finetune")
        goes_on = on_first(lambda: self._goes_on(resume, overwrite))
        teacher = self.network if self.teacher is None else self.teacher
        named = options.teacher or ("the dense network" if self.teacher is None else teacher)
        words = f"{self.crops.recovery_in_words(options)}, {in_words(named, options)}"
        begun = {"identity": known, "steps": options.steps, "recovery": words}
        on_first(lambda: store.list_images(self.crops.sources, goes_on))
        with self._step("finetune", begun, goes_on) as facts:
            recovered = run_training(
                pruned,
                self.crops.recovery(options),
                options,
                teacher=teacher if options.distill or options.features else None,
                dual=self.dual(options.dual_weight),
                device=self.settings.device,
                seed=self.settings.seed,
                files=self._training_files(goes_on),
                progress=self.progress,
            )
            self._dual_notes(facts)
            self._save("finetune", recovered)
        return recovered

    def report(self) -> Report:
        """Measure before and after, in the first process, while others wait.

        Raises:
            RunError: nothing is pruned yet.
            DrcError: as networks, images and files raise it.
        """
        with self._step("report", {}):
            report = on_first(self._measure)
        return report

    def run(self, resume: bool = False, recovery: bool = True) -> Report:
        """All steps in a row.

        Args:
            resume: leave out the steps that are finished, and go on with one that was cut short.
            recovery: whether to recover.
        """
        self.search(resume)
        if not (resume and on_first(lambda: self.store.finished("prune"))):
            self.prune()
        if recovery:
            self.recover(resume)
        return self.report()

    @property
    def model(self) -> nn.Module:
        """The network that the steps have made so far. Raises RunError."""
        return self.store.network("finetune" if self.store.finished("finetune") else "prune")

    @property
    def lacks_blur(self) -> bool:
        """Whether a network that estimates blur is to learn from images that have none."""
        return self.crops.is_sharp and isinstance(self.network, KernelEstimator)

    @contextmanager
    def _step(
        self, name: str, facts: dict[str, Any], goes_on: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Record a step as begun, and as finished after the block; yields its further facts."""
        earlier = on_first(lambda: self.store.records().get(name, {}))
        start = time.perf_counter() - float(earlier.get("seconds", 0.0) if goes_on else 0.0)
        if "dual" in earlier:  # the dual model outlives the attempt that fitted it
            facts["dual"] = earlier["dual"]
        settings = plain(self.settings)
        on_first(lambda: self.store.begin(name, facts, settings, goes_on))
        self._log(f"{name} ...")
        self.running = name
        try:
            yield facts
        except BaseException as error:
            facts["seconds"] = round(time.perf_counter() - start, 3)
            if is_first():
                resumable = name == "finetune" and isinstance(error, KeyboardInterrupt)
                with suppress(DrcError, OSError):  # the first error shows
                    self.store.abandon(name, facts, resumable)
            raise
        facts["seconds"] = seconds = round(time.perf_counter() - start, 3)
        on_first(lambda: self.store.finish(name, facts))
        self.running = None
        self._log(f"{name} took {seconds:.1f} s")

    def _find_dual(self) -> tuple[AnyDual, str]:
        """The dual model, on the CPU, and where it comes from."""
        traits, search = get_traits(self.network), self.settings.search
        stored = self.store.dual(traits.scale, traits.channels)
        if stored is not None:
            words = self.store.records().get("search", {}).get("dual", "stored in the run folder")
            return stored, words
        if self._given_dual is not None:
            dual, words = self._given_dual, self.origin.dual
        else:
            self._log("no trained dual model is given: fitting one on the calibration data")
            seed_everything(self.settings.seed)
            dual = fit_to_crops(
                self.crops.calibration(search), traits, search.dual_steps, self.settings.seed,
                self.settings.device, self.progress,
            )  # fmt: skip
            steps = f"{search.dual_steps} steps on the calibration data"
            words = f"none was given, so one was fitted in {steps}"
        self.store.save_dual(dual)
        return dual, words

    def _dual_notes(self, facts: dict[str, Any]) -> list[str]:
        """Where the dual model comes from, for the record and the plan."""
        facts["dual"] = "none: dual_weight is 0" if self._dual is None else self._dual[1]
        return [f"dual model: {facts['dual']}"]

    def _take_ratio(self, ratio: float) -> None:
        """Make `ratio`, one of several that were searched, that of the run from now on."""
        search = self.settings.search
        if ratio == search.ratio or ratio not in search.ratios:
            return
        search = search.model_copy(update={"ratio": ratio})
        self.settings = self.settings.model_copy(update={"search": search})
        if is_first():
            self.store.save_settings(plain(self.settings))  # which a later command goes on with

    def _plan_to_prune_by(self, plan: Plan | None) -> Plan:
        search, store = self.settings.search, self.store
        if plan is None:
            plan = store.plan(search.ratio if search.front else None)
        if store.finished("finetune") or store.unfinished():
            raise RunError(
                f"{store.name} already holds the recovery of its pruned network, which would be "
                "lost; start another run with `drc search`"
            )
        check_plan(self.network, plan)
        return plan

    def _identity_of_recovery(self, pruned: nn.Module) -> str:
        """What two recoveries share that give one network: settings, images, where they begin."""
        settings = self.settings
        parts = {
            "settings": identity(settings.recovery),
            "seed": settings.seed,
            "images": lines_of(self.crops.sources),
            "data": identity(settings.data),
            "pruned": fingerprint(pruned),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def _goes_on(self, resume: bool, overwrite: bool) -> bool:
        """Whether the checkpoint of an earlier attempt is taken up. Raises RunError."""
        store = self.store
        if store.unfinished():
            if not (resume or overwrite):
                raise RunError(
                    f"{store.name} holds an unfinished recovery; add --resume to go on with it, "
                    "or --overwrite to start over"
                )
            return resume
        if store.finished("finetune") and not overwrite and not resume:
            raise RunError(
                f"the recovery of {store.name} is finished already; add --overwrite to replace it"
            )
        return False

    def _training_files(self, resume: bool) -> TrainingFiles:
        files = self.store.files()
        return TrainingFiles(files.get("checkpoint"), files.get("metrics"), resume)

    def _save(self, step: str, network: nn.Module) -> None:
        settings = self.settings
        if is_first():
            provenance = {
                "made_by": f"drc {__version__} {step}",
                "model": settings.model,
                "weights": self.origin.weights,
                "ratio": settings.search.ratio,
                "budget": settings.search.budget,
                "strategy": settings.search.strategy,
                "importance": settings.prune.importance,
                "seed": settings.seed,
            }
            self.store.save_network(step, network, provenance)

    def _measure(self) -> Report:
        store, options, start = self.store, self.settings.report, time.perf_counter()
        finished = store.finished("finetune")
        report = collect(
            Networks(
                before=self.network,
                pruned=store.network("prune"),
                recovered=store.network("finetune") if finished else None,
            ),
            store.plan(),
            self.provenance(),
            test=self.test,
            lr_size=options.lr_size,
            runs=options.runs,
            inference=Inference(options.self_ensemble, options.tile, options.overlap),
            device=self.settings.device,
            kernels=store.files().get("blur kernels"),
            progress=self.progress,
        )
        report.steps["report"] = {"seconds": round(time.perf_counter() - start, 3)}
        store.save_report(report.to_json() + "\n", to_markdown(report))
        return report

    def provenance(self) -> Provenance:
        """What the report cannot measure."""
        settings, store = self.settings, self.store
        steps = {name: facts for name, facts in store.records().items() if name != "report"}
        calibration = self.crops.calibration_in_words(settings.search)
        return Provenance(
            command=self.origin.command,
            weights=self.origin.weights,
            importance=settings.prune.importance,
            calibration=steps.get("search", {}).get("calibration", calibration),
            recovery=steps.get("finetune", {}).get("recovery", "not run"),
            steps=steps,
            files=store.listed_files(),
            notes=self.origin.notes + ((NO_BLUR,) if self.lacks_blur else ()),
        )


def check_names(settings: RunSettings) -> None:
    """Raise UsageError, early, for a strategy or a criterion that there is not."""
    get_strategy(settings.search.strategy)
    get_criterion(settings.prune.importance)
    get_criterion(settings.search.sensitivity)


def plain(settings: Settings) -> dict[str, Any]:
    """The settings as `config.yaml` holds them."""
    return settings.model_dump(mode="json", exclude={"output"})

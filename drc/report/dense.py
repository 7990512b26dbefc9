"""The dense networks that runs start from: several runs may share one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from drc.report.run_files import RunFiles


def dense_labels(runs: Sequence[RunFiles]) -> list[str]:
    """What to call the dense network of each run; one that several share has one name.

    Networks that differ in their weights alone are told apart by the run that comes first.
    """
    first: dict[Hashable, RunFiles] = {}
    for run in runs:
        first.setdefault(_key(run), run)
    often = Counter(map(_network, first.values()))
    names = {
        key: f"{_network(run)}, dense" + (f" ({run.name})" if often[_network(run)] > 1 else "")
        for key, run in first.items()
    }
    return [names[_key(run)] for run in runs]


def _network(run: RunFiles) -> str:
    return f"{run.report.model} x{run.report.scale}"


def _key(run: RunFiles) -> Hashable:
    """Equal for equal networks: by their weights where a plan tells those."""
    report = run.report
    return run.checksum or (report.model, report.scale, report.weights, report.before.params)


__all__ = ["dense_labels"]

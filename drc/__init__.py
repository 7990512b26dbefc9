"""drc: dual-regression channel pruning for super-resolution networks.

The public names are imported when first used, so that `import drc` stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "AdaptSettings": "drc.settings",
    "Compression": "drc.compression",
    "PruneSettings": "drc.settings",
    "RecoverySettings": "drc.settings",
    "ReportSettings": "drc.settings",
    "RunSettings": "drc.settings",
    "SearchSettings": "drc.settings",
    "TrainSettings": "drc.settings",
    "TrainingFiles": "drc.training.loop",
    "Result": "drc.api",
    "adapt": "drc.api",
    "apply": "drc.store.networks",
    "complexity": "drc.evaluation.complexity",
    "compress": "drc.api",
    "create_model": "drc.networks.weights",
    "evaluate": "drc.evaluation.benchmark",
    "export": "drc.exporters.run",
    "finetune": "drc.api",
    "inspect": "drc.report.inspection",
    "list_models": "drc.networks.registry",
    "load": "drc.store.networks",
    "merge": "drc.merging.merge",
    "prune": "drc.api",
    "save": "drc.store.networks",
    "search": "drc.api",
    "train": "drc.api",
    "upscale": "drc.upscaling.api",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'drc' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})

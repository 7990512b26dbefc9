"""A benchmark's figures, line by line as they come, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from drc.core.errors import ModelError
from drc.core.runtime import resolve_device
from drc.evaluation.complexity import complexity
from drc.evaluation.latency_table import device_name
from drc.evaluation.speed import MODES, Timing
from drc.report.table import MISSING, figure

_COLUMNS = ("LR", "mode", "network", "ms", "speed-up", "by MACs")


@dataclass(frozen=True)
class Row:
    """What one network costs.

    Attributes:
        network: its name.
        params: scalars in its parameters.
        macs: multiply-adds of one image; None where they cannot be counted.
        mac_ratio: the first network's over this one's.
    """

    network: str
    params: int
    macs: int | None
    mac_ratio: float | None


@dataclass
class BenchRecord:
    """Everything that one benchmark says.

    Attributes:
        networks: what each costs, the first being what the others are compared with.
        macs_lr_size: height and width of the LR image that MACs are for.
        runs: timed passes per network.
        device: what they run on.
        gpu: whether that is a GPU.
        modes: what the modes mean, by name.
        threads: of the CPU.
        torch: its version.
        timings: so far.
        notes: what else must be known, one sentence each.
        finished: whether every size and mode is there.
    """

    networks: list[Row]
    macs_lr_size: tuple[int, int]
    runs: int
    device: str
    gpu: bool
    threads: int
    torch: str
    modes: dict[str, str]
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finished: bool = False

    def to_json(self) -> str:
        """All of it."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    def head(self) -> Iterator[str]:
        """The lines above the figures."""
        height, width = self.macs_lr_size
        yield (
            f"{self.device}, {self.threads} threads, torch {self.torch}; batch 1, "
            f"median of {self.runs} runs, networks in turns"
        )
        for row in self.networks:
            macs = "MACs not counted" if row.macs is None else f"{row.macs / 1e9:.2f} G MACs"
            yield f"{row.network}: {row.params:,} parameters, {macs} at LR {height}x{width}"
        for note in self.notes:
            yield f"note: {note}"
        yield ""
        yield self._line(*_COLUMNS, "peak MiB")

    def lines(self, timings: list[Timing]) -> Iterator[str]:
        """One line per network of a size and mode."""

        def times(ratio: float | None) -> str:
            return MISSING if ratio is None else f"{ratio:.2f}x"

        ratios = {row.network: row.mac_ratio for row in self.networks}
        for found in timings:
            size = f"{found.lr_size[0]}x{found.lr_size[1]}"
            last = found.failure or ("" if found.peak_mib is None else f"{found.peak_mib:,.1f}")
            yield self._line(
                size,
                found.mode,
                found.network,
                figure(found.median_ms, 2),
                times(found.speedup),
                times(ratios[found.network]),
                last,
            )

    def _line(self, size: str, mode: str, name: str, *figures: str) -> str:
        width = max(len(row.network) for row in self.networks)
        *numbers, last = figures
        cells = [f"{size:<9}", f"{mode:<13}", f"{name:<{max(width, 7)}}"]
        cells += [f"{number:>10}" for number in numbers]
        return "  ".join([*cells, last]).rstrip()


def start_record(
    networks: Mapping[str, nn.Module],
    sizes: list[tuple[int, int]],
    runs: int,
    device: str,
    notes: list[str],
    others: Mapping[str, str] | None = None,
) -> BenchRecord:
    """A record without timings: count parameters and MACs, and note where they are measured.

    `others` are modes besides torch's, with what they mean.

    MACs are counted on the smallest of the sizes, as their ratio hardly depends on it.
    """
    where = resolve_device(device)
    size = min(sizes, key=lambda size: size[0] * size[1])
    rows: list[Row] = []
    for name, network in networks.items():
        try:
            macs: int | None = complexity(network, size).macs
        except ModelError:  # the timings do not depend on it
            macs = None
        base = rows[0].macs if rows else macs
        params = sum(p.numel() for p in network.parameters())
        rows.append(Row(name, params, macs, base / macs if base and macs else None))
    return BenchRecord(
        networks=rows,
        macs_lr_size=size,
        runs=runs,
        device=device_name(where),
        gpu=where.type == "cuda",
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        modes={**MODES, **(others or {})},
        notes=notes,
    )

"""The tables that `--table` prints: means over seeds, as Markdown."""

from __future__ import annotations

from statistics import fmean, stdev
from typing import Any

from benchmarks.rivals.methods import DENSE, METHODS

Row = dict[str, Any]
_SETS = ("held_out", "Set5", "Set14")


def tables(result: Row) -> str:
    """A table per removed fraction, of one result file; `a +- b` is mean and deviation by seed."""
    rows = [row for row in result["rows"] if "failed" not in row]
    ratios = sorted({row["ratio"] for row in rows} - {0.0})
    parts = [_heading(result)]
    for ratio in ratios or [0.0]:
        parts.append(_table(result, [r for r in rows if r["ratio"] in (0.0, ratio)], ratio))
    for row in result["rows"]:
        if "failed" in row:
            parts.append(f"- {row['method']} at {row['ratio']:.0%}: {row['failed']}")
    return "\n".join(parts)


def _heading(result: Row) -> str:
    dense = result["dense"]
    cost = f"{dense['params']:,} parameters, {dense['macs'] / 1e9:.2f} G MACs"
    psnr = ", ".join(f"{name} {dense['quality'][name]['psnr']:.2f}" for name in _SETS)
    return f"### {result['network']}\n\nDense: {cost}; {psnr} dB.\n"


def _table(result: Row, rows: list[Row], ratio: float) -> str:
    lengths = sorted({int(steps) for row in rows for steps in row["after"]})
    titles = [f"{name}, {steps}" for steps in lengths for name in _SETS]
    head = ["method", "removed", "MACs", *titles, "passes of 16", "seconds", "speed-up", "seeds"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    order = [DENSE, *METHODS]
    found = {row["method"] for row in rows}
    for method in [*(m for m in order if m in found), *sorted(found - set(order))]:
        line = _line(result["dense"], [r for r in rows if r["method"] == method], lengths)
        lines.append("| " + " | ".join([method, *line]) + " |")
    note = "PSNR in dB after so many steps of recovery"
    return f"{ratio:.0%} of the parameters removed; {note}.\n\n" + "\n".join(lines) + "\n"


def _line(dense: Row, rows: list[Row], lengths: list[int]) -> list[str]:
    cells = [
        f"{1 - fmean(r['params'] for r in rows) / dense['params']:.1%}",
        f"/ {dense['macs'] / fmean(r['macs'] for r in rows):.2f}",
    ]
    for steps in map(str, lengths):
        after = [row["after"][steps] for row in rows if steps in row["after"]]
        cells += [_spread([quality[name]["psnr"] for quality in after]) for name in _SETS]
    searches = [row["search"] for row in rows if row.get("search")]
    cells += [_spread([search[key] for search in searches], 1, False) for key in _COSTS]
    speeds = [row["speed"]["speedup"] for row in rows if row.get("speed")]
    return [*cells, _spread(speeds, 2, False), str(len(rows))]


_COSTS = ("passes16", "seconds")


def _spread(values: list[float], digits: int = 2, deviation: bool = True) -> str:
    """Mean, and the deviation of a sample where there are two values or more."""
    if not values:
        return ""
    mean = f"{fmean(values):.{digits}f}"
    return f"{mean} ± {stdev(values):.{digits}f}" if deviation and len(values) > 1 else mean

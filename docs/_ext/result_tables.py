"""What the tables of `benchmark_tables` show of each result file, one function per file.

A function takes the file's content and returns its tables. It reads what it needs by `[key]`, so
that a key that is gone fails the build, and what some rows alone have by `.get(key)`, whose absence
is an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any

from drc.report.table import Table

Row = dict[str, Any]

_MAKERS: dict[str, Callable[[Row], list[Table]]] = {}


def shows(*names: str) -> Callable[[Callable[[Row], list[Table]]], Callable[[Row], list[Table]]]:
    """Make the decorated function that of the result files called `names`."""

    def add(maker: Callable[[Row], list[Table]]) -> Callable[[Row], list[Table]]:
        _MAKERS.update(dict.fromkeys(names, maker))
        return maker

    return add


def tables_of(name: str, result: Row) -> list[Table]:
    """The tables of the result file called `name`.

    Raises:
        KeyError: the file lacks a key.
        ValueError: no function is there for the file, or a table has no rows.
    """
    if name not in _MAKERS:
        raise ValueError(f"result_tables.py has no function for it; it has {', '.join(_MAKERS)}")
    tables = _MAKERS[name](result)
    for table in tables:
        if not table.rows:
            raise ValueError(f"the table {table.title or name!r} has no rows")
    return tables


def describe(result: Row) -> str:
    """A line on where a file comes from: its command, date, machine and version of torch."""
    machine = result["machine"]
    where = f"{machine['cpu']}, {_count(machine, 'cores')}, {_count(machine, 'threads')}"
    made = f"`{result['command']}`, {result['date']}"
    torch = result["versions"]["torch"]
    return f"Written by {made} (the last run that added to it); {where}; torch {torch}."


def _count(machine: Row, what: str) -> str:
    return f"{machine[what]} {what if machine[what] != 1 else what.removesuffix('s')}"


@shows("rivals_drn_tiny", "rivals_craft_x4")
def _rivals(result: Row) -> list[Table]:
    dense = result["dense"]
    rows = [row for row in result["rows"] if "failed" not in row]
    sets = list(dense["quality"])
    tables = []
    for ratio in sorted({row["ratio"] for row in rows} - {0.0}):
        these = [row for row in rows if row["ratio"] in (0.0, ratio)]
        lengths = sorted({int(steps) for row in these for steps in row["after"]})
        head = ["method", "removed", "MACs", *(f"{s}, {n} steps" for n in lengths for s in sets)]
        title = f"{result['network']}, {ratio:.0%} of the parameters removed; PSNR in dB"
        methods = sorted({row["method"] for row in these}, key=_rivals_order)
        cells = [
            [method, *_rival([r for r in these if r["method"] == method], dense, lengths, sets)]
            for method in methods
        ]
        tables.append(Table([*head, "passes of 16", "seeds"], cells, title))
    failed = [[row["method"], f"{row['ratio']:.0%}", row["failed"]] for row in result["rows"]
              if "failed" in row]  # fmt: skip
    return [*tables, *([Table(["method", "ratio", "failed"], failed)] if failed else [])]


def _rivals_order(method: str) -> tuple[bool, bool, str]:
    return method != "dense", not method.startswith("ours"), method


def _rival(rows: list[Row], dense: Row, lengths: list[int], sets: list[str]) -> list[str]:
    """One method: means over its seeds, with the deviation where there are several."""
    after = [
        [row["after"][str(steps)] for row in rows if str(steps) in row["after"]]
        for steps in lengths
    ]
    searches = [row["search"]["passes16"] for row in rows if row.get("search")]
    return [
        f"{1 - fmean(row['params'] for row in rows) / dense['params']:.1%}",
        f"/ {dense['macs'] / fmean(row['macs'] for row in rows):.2f}",
        *(_mean([quality[name]["psnr"] for quality in found]) for found in after for name in sets),
        f"{fmean(searches):.1f}" if searches else "",
        str(len(rows)),
    ]


def _mean(values: list[float]) -> str:
    if not values:
        return ""
    spread = f"\u00a0±\u00a0{stdev(values):.2f}" if len(values) > 1 else ""
    return f"{fmean(values):.2f}{spread}"


@shows("coverage")
def _coverage(result: Row) -> list[Table]:
    totals = result["totals"]
    of = f"of {totals['traced']}"
    failed = ", ".join(name for name, row in result["networks"].items() if "groups" not in row)
    rows = [
        ["networks tried", str(totals["networks"])],
        ["traced", f"{totals['traced']} (not: {failed or 'none'})"],
        ["channel groups that can go", f"{totals['groups_removable']:,} of {totals['groups']:,}"],
        ["cut equals masked", f"{totals['cut_equals_masked']} {of}"],
        ["output keeps its shape", f"{totals['shape_kept']} {of}"],
        ["30 % of the parameters removed", f"{totals['30_percent_of_parameters_removed']} {of}"],
        ["a saved file reloads exactly", f"{totals['reloads_exactly_of_these']} {of}"],
        ["can be trained after the cut", f"{totals['backward_runs']} {of}"],
        ["runs as ONNX", f"{totals['onnx_runs_of_these']} {of}"],
        ["torch-pruning prunes", f"{totals['torch_pruning_prunes_of_these']} {of}"],
    ]
    return [Table(["what", "how many"], rows)]


@shows("speed")
def _speed(result: Row) -> list[Table]:
    rows = [[_words(name), f"{value:.3g}"] for name, value in result["seconds"].items()]
    return [Table(["what", "seconds"], rows)]


def _words(name: str) -> str:
    return name.removesuffix("_seconds").replace("_", " ").replace("drn ", "drn_")


@shows("latency_budget")
def _latency_budget(result: Row) -> list[Table]:
    head = ["network", "asked", "achieved", "off by", "before, ms", "after, ms", "search, s"]
    rows = [
        [
            row["network"],
            f"{row['asked']:.0%}",
            f"{row['achieved']:.1%}",
            f"{row['miss_of_time']:.1%}",
            f"{row['before_ms']:.1f}",
            f"{row['after_ms']:.1f}",
            f"{row['search_seconds']:.0f}",
        ]
        for row in result["networks"]
    ]
    size = "x".join(map(str, result["lr_size"]))
    title = f"{result['strategy']} widths, LR {size}, {result['clock']}"
    return [Table(head, rows, f"{title}; fractions of the time of a pass removed")]


@shows("search_cost_drn_s")
def _search_cost(result: Row) -> list[Table]:
    search, training = result["search"], result["training"]
    rows = [
        ["crops through the network", str(search["crop_passes"])],
        ["the same in passes of 16 crops", f"{result['passes_of_16']:.0f}"],
        ["share of the published passes", f"1 / {1 / result['share_of_published_passes']:,.0f}"],
        *([name, f"{value:.1f} s"] for name, value in search["seconds_by_part"].items()),
        ["all of it", f"{search['seconds']:.1f} s"],
        ["peak memory", f"{search['peak_mb']:,} MB"],
        ["peak memory of a training step", f"{training['peak_mb']:,} MB"],
    ]
    return [Table([f"search, ranking and refit of {result['model']}", "cost"], rows)]


@shows("own_weights")
def _own_weights(result: Row) -> list[Table]:
    head = ["network", "removed", "MACs removed"]
    head += [f"{name}, {when}" for name in ("Set5", "Set14") for when in ("before", "after")]
    rows = []
    for row in result["rows"]:
        before, after = row["before"], row["after"]
        quality = [f"{row[s][f'psnr_{when}']:.2f}" for s in ("Set5", "Set14")
                   for when in ("before", "after")]  # fmt: skip
        gone = [f"{1 - after[key] / before[key]:.1%}" for key in ("params", "macs")]
        rows.append([row["network"], *gone, *quality])
    return [Table(head, rows, "PSNR in dB before compression and after recovery")]


@shows("parity")
def _parity(result: Row) -> list[Table]:
    outputs = [
        [name, f"{max(parts.values()):.1e}"] for name, parts in result["outputs"].items() if parts
    ]
    counts = [
        [
            f"{row['published']['model']} x{row['published']['scale']}",
            f"{row['published']['params']:,}",
            f"{row['measured']['params']:,}",
            _number(row["published"]["macs_g"]),
            f"{row['measured']['macs'] / 1e9:.2f}",
        ]
        for row in result["paper"]
    ]
    head = ["network", "parameters, published", "counted", "MACs (G), published", "counted"]
    return [
        Table(["network", "largest difference"], outputs, "Against the official outputs, of range"),
        Table(head, counts, "Against the papers' figures, LR 96x96"),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@shows("adaptation")
def _adaptation(result: Row) -> list[Table]:
    sets = ("held_out", "Set5", "Set14")
    tables = []
    for degradation in dict.fromkeys(row["degradation"] for row in result["rows"]):
        rows = [
            [
                row["row"],
                row.get("pairs", ""),
                f"{row['dual_weight']:g}" if "dual_weight" in row else "",
                *(f"{row[name]:.2f}" for name in sets),
                f"{row['held_out_bicubic_lr']:.2f}",
            ]
            for row in result["rows"]
            if row["degradation"] == degradation
        ]
        head = ["what", "pairs", "lambda", *sets, "held_out, bicubic LR"]
        title = f"{result['network']} on LR images made by `{degradation}`; PSNR in dB"
        tables.append(Table(head, rows, title))
    return tables


@shows("rounding_drn_tiny", "rounding_slwsr16_x4")
def _rounding(result: Row) -> list[Table]:
    head = ["removed", "of", "multiples of", "PSNR (dB)", "parameters", "MACs", "time"]
    rows = [
        [f"{row['ratio']:.0%}", row["budget"], str(row["round_to"]), *_rounded(row)]
        for row in result["rows"]
    ]
    dense = f"right after pruning; dense: {result['dense_psnr']:.3f} dB"
    return [Table(head, rows, f"Held-out PSNR {dense}; costs over those of the dense network")]


def _rounded(row: Row) -> list[str]:
    if not row.get("reached", True):
        return ["out of reach", "", "", ""]
    return [f"{row[key]:.3f}" for key in ("psnr", "params", "macs", "time")]


@shows("loader_speed")
def _loader_speed(result: Row) -> list[Table]:
    keys = result["patches_per_second"][0]
    workers = sorted(key for key in keys if key.startswith("workers_"))
    titles = [f"{key.removeprefix('workers_')} workers" for key in workers]
    head = ["images", "LR", "cached", *titles, "CPU ms per crop"]
    rows = [
        [row["images"], row["lr"], "yes" if row["cached"] else "no",
         *(f"{row[key]:,.0f}" for key in workers), f"{row['cpu_ms_per_patch']:.2f}"]
        for row in result["patches_per_second"]
    ]  # fmt: skip
    crops = f"crops of LR {result['patch']}x{result['patch']} in batches of {result['batch']}"
    return [Table(head, rows, f"Crops per second: {crops}")]


@shows("runtimes")
def _runtimes(result: Row) -> list[Table]:
    versions = [[name, value or "-"] for name, value in result["runtimes"].items()]
    tables = [_in_runtimes(name, row) for name, row in result["networks"].items()]
    return [*tables, Table(["package", "version"], versions)]


def _in_runtimes(name: str, row: Row) -> Table:
    dense, *pruned = row["params"]
    head = ["runtime", "LR", f"{dense}, ms"]
    for key in pruned:
        head += [f"{key} removed, ms", "speed-up"]
    head += ["files, MB", "peak, MiB"]
    cells = [
        [mode, lr, *_times(found, pruned), _megabytes(entry.get("bytes")), _peaks(found)]
        for mode, entry in row["modes"].items()
        for lr, found in entry["sizes"].items()
    ]
    fewer = ", ".join(f"{row['macs'][dense] / row['macs'][key]:.2f}x at {key}" for key in pruned)
    title = f"{name}, {row['params'][dense]:,} parameters; fewer MACs by {fewer} removed"
    return Table(head, cells, title)


def _times(found: Row, pruned: list[str]) -> list[str]:
    """Of the dense network the time, of the others with the speed-up; dashes for what failed."""
    cells = [_ms(found["dense"])]
    for key in pruned:
        speedup = found[key].get("speedup")
        cells += [_ms(found[key]), "-" if speedup is None else f"{speedup:.2f}x"]
    return cells


def _ms(figures: Row) -> str:
    return "-" if "failure" in figures else f"{figures['ms']:,.1f}"


def _megabytes(sizes: Row | None) -> str:
    known = [size for size in (sizes or {}).values() if size is not None]
    return " / ".join(f"{size / 1e6:.2f}" for size in known) or "-"


def _peaks(found: Row) -> str:
    known = [figures["peak_mib"] for figures in found.values() if "peak_mib" in figures]
    return " / ".join(f"{value:,.0f}" for value in known) or "-"

"""The coverage results as a table, for the terminal and for the docs, and their totals."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table

Records = dict[str, dict[str, Any]]

_EXACT = {"float64": 1e-9, "float32": 1e-5}
HEADINGS = (
    "network",
    "params",
    "groups",
    "removable",
    "removed",
    "cut = masked",
    "shape",
    "reload",
    "backward",
    "ONNX",
    "trace s",
    "memory MB",
    "torch-pruning",
)
_NOTES = """\
`groups` are removable ones of all; the channels of the images that go in and come out, and
dimensions of size one, are no groups. `removed` is the share of the parameters gone at 30 % or
the most possible. `cut = masked` is the largest difference relative to the output, in float64
where the network runs in it. `reload`: saved, applied to a new network in another process, equal
bit for bit. `trace s` includes verification; in brackets, one forward pass at the same input.
`memory MB` is the peak of tracing and verifying, in brackets that of one forward pass, each in
its own process, the network counted and the libraries not. torch-pruning prunes correctly when
the network runs, keeps its output shape and loses at least 10 % of its parameters.
"""


def print_table(results: Records) -> None:
    """Print the table and the totals."""
    table = Table(*HEADINGS)
    for name, record in results.items():
        table.add_row(*row(name, record))
    console = Console(width=200)
    console.print(table)
    for key, value in totals(results).items():
        console.print(f"{key.replace('_', ' ')}: {value}")


def markdown(results: Records) -> str:
    """The table, what its columns mean, and the totals, for the docs."""
    lines = [_line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(row(name, record)) for name, record in results.items()]
    stays = [_line(("why channels stay", "groups", "networks")), _line(["---"] * 3)]
    stays += [_line(cells) for cells in reasons(results)]
    facts = [f"- {key.replace('_', ' ')}: {value}" for key, value in totals(results).items()]
    return "\n".join([*lines, "", _NOTES, *facts, "", *stays, ""])


def reasons(results: Records) -> list[tuple[str, int, str]]:
    """Why groups stay: the reason, how many groups, and the networks; most frequent first."""
    groups: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for name, record in results.items():
        for entry in record.get("frozen", ()):
            groups[entry["reason"]] += entry["groups"]
            where.setdefault(entry["reason"], []).append(name)
    return [(reason, count, ", ".join(where[reason])) for reason, count in groups.most_common()]


def row(name: str, record: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one network, in the order of `HEADINGS`."""
    return (
        name,
        f"{record['params']:,}" if "params" in record else "-",
        _groups(record),
        _known(record.get("percent_removable"), "{} %"),
        _known(record.get("removed") and 100 * record["removed"], "{:.1f} %"),
        _known(record.get("max_error"), "{:.0e}", record.get("equal_error")),
        _shape(record),
        record.get("apply") or _failed(record, "save_error", "apply_error"),
        record.get("backward") or _failed(record, "backward_error"),
        record.get("onnx", "-"),
        _times(record),
        _memory(record),
        _rival(record),
    )


def totals(results: Records) -> dict[str, Any]:
    """How many networks have each property, of how many."""
    records = list(results.values())
    groups = sum(r.get("groups", 0) for r in records)
    removable = sum(r.get("removable", 0) for r in records)
    slow = [n for n, r in results.items() if r.get("trace_seconds", 1e9) >= 5]
    full = [r for r in records if "quick" not in r]
    hungry = [n for n, r in results.items() if "quick" not in r and hungry_trace(r)]
    low = [n for n, r in results.items() if r.get("percent_removable", 0) < 80]
    return {
        "networks": len(records),
        "traced": sum("groups" in r for r in records),
        "groups": groups,
        "groups_removable": removable,
        "percent_removable": round(100 * removable / max(1, groups), 1),
        "under_80_percent_removable": low,
        "cut_equals_masked": sum(map(exact, records)),
        "shape_kept": sum(bool(r.get("shape_kept")) for r in records),
        "30_percent_of_parameters_removed": sum(r.get("removed", 0) >= 0.295 for r in records),
        "fully_measured": len(full),
        "reloads_exactly_of_these": sum(r.get("apply") == "exact" for r in records),
        "backward_runs": sum(str(r.get("backward")).startswith("runs") for r in records),
        "onnx_runs_of_these": sum(r.get("onnx") in ("dynamo", "torchscript") for r in records),
        "onnx_fails_for_the_dense_network_too": sum(
            str(r.get("onnx")).startswith("n/a") for r in records
        ),
        "trace_of_5_s_or_more": slow,
        "twice_the_memory_of_a_forward_pass_or_more_of_these": hungry,
        "torch_pruning_prunes_of_these": sum(r.get("rival") == "prunes" for r in records),
    }


def exact(record: dict[str, Any]) -> bool:
    """Whether something was cut, and the result computes what masking does."""
    limit = _EXACT.get(record.get("compared_in", ""), 0.0)
    return record.get("max_error", 1.0) <= limit and record.get("removable", 0) > 0


def hungry_trace(record: dict[str, Any]) -> bool:
    """Whether tracing takes twice the memory of a forward pass, 16 MB of its own allowed."""
    ours, forward = (record.get(f"{task}_added_mb") for task in ("trace", "forward"))
    return ours is None or forward is None or ours - 16 >= 2 * forward


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _groups(record: dict[str, Any]) -> str:
    if "groups" not in record:
        return _failed(record, "trace_error", "prune_error")
    return f"{record['removable']} of {record['groups']}"


def _shape(record: dict[str, Any]) -> str:
    if record.get("other_size") is False:
        return "not at other sizes"
    kept = record.get("shape_kept")
    return _failed(record, "cut_error") if kept is None else "kept" if kept else "changed"


def _times(record: dict[str, Any]) -> str:
    if "trace_seconds" not in record:
        return "-"
    return f"{record['trace_seconds']:.2f} ({record['forward_seconds']:.2f})"


def _memory(record: dict[str, Any]) -> str:
    ours, forward = (record.get(f"{task}_added_mb") for task in ("trace", "forward"))
    return "-" if ours is None or forward is None else f"{ours:.0f} ({forward:.0f})"


def _rival(record: dict[str, Any]) -> str:
    outcome = record.get("rival") or _failed(record, "rival_error")
    removed = record.get("rival_removed")
    return outcome if removed is None else f"{outcome} ({removed:.0%})"


def _known(value: Any, form: str, error: str | None = None) -> str:
    if value is None:
        return "fails" if error else "-"
    return form.format(value)


def _failed(record: dict[str, Any], *keys: str) -> str:
    return "fails" if any(record.get(key) for key in keys) else "-"

"""Prove on the network itself that cutting equals masking; freeze the groups where it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from drc.core.errors import ModelError
from drc.graph.groups import ChannelGraph, Group
from drc.graph.inputs import Inputs, call
from drc.graph.surgery import KeepSets, cut
from drc.graph.verify.checker import BREAKS, Checker, difference
from drc.graph.verify.masked import run_masked

_PATTERNS = 2


class CutError(Exception):
    """Some cut network does not run."""


def verify(
    model: nn.Module, graph: ChannelGraph, inputs: Inputs, seed: int = 0, strict: bool = False
) -> ChannelGraph:
    """Return `graph` without the groups whose removal fails or changes more than it should.

    All groups are cut at once, each to a random width, in several patterns, on two images and
    on a wider one; the cut network must also run in training mode. Only when a pattern fails
    are the culprits found by halving. The comparison runs in float64 where the network allows it,
    and parameters that are all zero are given values first: a closed branch hides its faults.

    Args:
        model: the network, in eval mode; it is not changed.
        graph: what the tracer found.
        inputs: the example inputs.
        seed: of the random patterns.
        strict: raise where a cut does not run, instead of looking for the groups behind it.

    Raises:
        CutError: a cut does not run, with `strict`.
    """
    checker = Checker(model, graph, inputs)
    # Streams first, so that what fails only beside a cut stream is blamed, and not the stream.
    ordered = sorted(graph.groups, key=lambda group: -len(group.slices))
    reasons: dict[str, str] = {}
    unshown: dict[tuple[str, int], ChannelGraph] = {}
    for number in range(_PATTERNS):
        pattern = _random_pattern(graph, seed + number)
        proven: dict[str, str] = {}
        while True:
            healthy = [group for group in ordered if group.name not in reasons | proven]
            why = checker.failure(_part(pattern, healthy), number)
            if why is None:
                break
            group, why = _first_culprit(checker, healthy, pattern, number, why)
            kin = [other for other in healthy if _kind(other) == _kind(group)]
            if _kind(group) not in unshown:
                unshown[_kind(group)] = checker.graph
                if checker.show_dense(kin):
                    continue
            if strict and why.startswith(BREAKS):
                raise CutError(why)
            checker.graph = unshown[_kind(group)]
            proven.update({other.name: why for other in kin})
            reasons[group.name] = why
        doubtful = [group for group in ordered if group.name in proven.keys() - reasons.keys()]
        together = [g for g in ordered if g.name not in reasons | proven] + doubtful
        if doubtful and checker.failure(_part(pattern, together), number) is not None:
            reasons.update(proven)
    calls = (c for c in checker.graph.calls if c.module in checker.resized and not c.spare)
    graph = replace(graph, calls=tuple(calls))
    return graph.freeze(reasons) if reasons else graph


def _first_culprit(
    checker: Checker, groups: Sequence[Group], pattern: Mapping[str, Any], number: int, why: str
) -> tuple[Group, str]:
    """The group with which cutting starts to fail, as one after the other is cut."""
    fine, bad = 0, len(groups)
    while bad - fine > 1:
        middle = (fine + bad) // 2
        reason = checker.failure(_part(pattern, groups[:middle]), number)
        if reason is None:
            fine = middle
        else:
            bad, why = middle, reason
    return groups[bad - 1], why


def _part(pattern: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    return {group.name: pattern[group.name] for group in groups}


def _kind(group: Group) -> tuple[str, int]:
    """What the groups of repeated blocks have in common."""
    return re.sub(r"\d+", "*", group.name), group.size


def check(model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Inputs) -> None:
    """Raise ModelError unless cutting `model` to `keep` equals masking it, on all inputs."""
    checker = Checker(model, graph, inputs)
    for number in range(len(checker.images)):
        why = checker.failure(keep, number)
        if why is not None:
            raise ModelError(f"the cut network is not what it should be ({why}); please report it")


def compare(model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Inputs) -> float:
    """Largest difference between the cut and the masked network, in units of the output."""
    small = cut(model, graph, keep)
    with torch.no_grad():
        ours = call(small, inputs)
    return difference(ours, run_masked(model, graph, keep, inputs))


def _random_pattern(graph: ChannelGraph, seed: int) -> dict[str, list[list[int]]]:
    """Keep a random number of atoms in every group, never all, so that hidden couplings show.

    At least a quarter: a layer norm over one or two channels multiplies rounding errors. More than
    one, which fits by broadcasting. Widths that neither 2 nor 3 divides, where there are any, for
    shuffles and splits hide behind others.
    """
    generator = torch.Generator().manual_seed(seed)
    pattern = {}
    for group in graph.groups:
        least, most = max(1, group.size // 4), max(1, group.size - 1)
        possible = range(least, most + 1)
        wider = [width for width in possible if width > 1] or list(possible)
        widths = [width for width in wider if math.gcd(width, 6) == 1] or wider
        width = widths[int(torch.randint(len(widths), (1,), generator=generator))]
        orders = [torch.randperm(group.size, generator=generator) for _ in range(group.blocks)]
        pattern[group.name] = [sorted(order[:width].tolist()) for order in orders]
    return pattern

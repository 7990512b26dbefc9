"""Prove on the network itself that cutting equals masking; freeze the groups where it does not."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from drc.errors import ModelError
from drc.graph.groups import ChannelGraph, Group
from drc.graph.inputs import Inputs, call, map_inputs, tensors_of
from drc.graph.masked import run_exactly, run_masked
from drc.graph.resize import attached
from drc.graph.surgery import Cut, KeepSets, copy_of, cut, get_cut, removed, twin_of

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the output's magnitude
_PATTERNS = 2
_SMALL = 64 * 64  # pixels
_MANY_PIXELS = 256 * 256
_MANY_WEIGHTS = 200_000_000
_NO_WEIGHT = 1e-4
_BREAKS = "cutting it breaks the forward pass"


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
    judge = _Judge(model, graph, inputs)
    # Streams first, so that what fails only beside a cut stream is blamed, and not the stream.
    ordered = sorted(graph.groups, key=lambda group: -len(group.slices))
    reasons: dict[str, str] = {}
    told: set[tuple[str, int]] = set()
    for number in range(_PATTERNS):
        pattern = _random_pattern(graph, seed + number)
        proven: dict[str, str] = {}
        while True:
            healthy = [group for group in ordered if group.name not in reasons | proven]
            why = judge.failure(_part(pattern, healthy), number)
            if why is None:
                break
            if strict and why.startswith(_BREAKS):
                raise CutError(why)
            group, why = _first_culprit(judge, healthy, pattern, number, why)
            if _kind(group) not in told and judge.tell(
                [g for g in healthy if _kind(g) == _kind(group)]
            ):
                told.add(_kind(group))
                continue
            proven.update({kin.name: why for kin in healthy if _kind(kin) == _kind(group)})
            reasons[group.name] = why
        doubtful = [group for group in ordered if group.name in proven.keys() - reasons.keys()]
        together = [g for g in ordered if g.name not in reasons | proven] + doubtful
        if doubtful and judge.failure(_part(pattern, together), number) is not None:
            reasons.update(proven)
    calls = (c for c in judge.graph.calls if c.module in judge.resized and not c.spare)
    graph = replace(graph, calls=tuple(calls))
    return graph.freeze(reasons) if reasons else graph


def _first_culprit(
    judge: _Judge, groups: Sequence[Group], pattern: Mapping[str, Any], number: int, why: str
) -> tuple[Group, str]:
    """The group with which cutting starts to fail, as one after the other is cut."""
    fine, bad = 0, len(groups)
    while bad - fine > 1:
        middle = (fine + bad) // 2
        reason = judge.failure(_part(pattern, groups[:middle]), number)
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
    judge = _Judge(model, graph, inputs)
    for number in range(len(judge.images)):
        why = judge.failure(keep, number)
        if why is not None:
            raise ModelError(f"the cut network is not what it should be ({why}); please report it")


def compare(model: nn.Module, graph: ChannelGraph, keep: KeepSets, inputs: Inputs) -> float:
    """Largest difference between the cut and the masked network, in units of the output."""
    small = cut(model, graph, keep)
    with torch.no_grad():
        ours = call(small, inputs)
    return _difference(ours, run_masked(model, graph, keep, inputs))


class _Judge:
    """What the comparisons need, and the modules whose sizes had to be rewritten in them."""

    def __init__(self, model: nn.Module, graph: ChannelGraph, inputs: Inputs) -> None:
        self.graph, self.model, self._given = graph, _woken(model), inputs
        self.resized: set[str] = set()
        # Wide, so that rounding is not taken for a fault, where time and memory may well be there.
        weights = sum(p.numel() for p in model.parameters())
        pixels = max((x[0, 0].numel() for x in tensors_of(inputs) if x.ndim == 4), default=0)
        large = weights > _MANY_WEIGHTS or pixels > _MANY_PIXELS
        self.dtype: torch.dtype | None = None if large else torch.float64
        self.images: list[Inputs] = [inputs]
        self._spare: dict[int, Inputs] = {}
        if isinstance(inputs, Tensor):
            pair = torch.cat((inputs, inputs.flip(-1)))
            wider = torch.cat((inputs, inputs.flip(-1)), -1)
            square = torch.cat((wider, wider), -2)
            # The time of verification is to stay that of a few forward passes.
            others = [wider, square] if inputs[0, 0].numel() <= _SMALL else [inputs]
            self.images = [pair, others[0]]
            self._spare = dict(enumerate([inputs, *others[1:]]))
        # What batch normalisation learns from one image may be a single number, which it refuses.
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
        self._to_train_on = self.images[0] if normed else inputs
        self._taken: set[int] = set()  # the images that the dense network is known to take
        self._runs_wide: bool | None = None
        self._trains: bool | None = None

    def failure(self, keep: KeepSets, number: int) -> str | None:
        """Why cutting to `keep` goes wrong, or None when it equals masking."""
        if not keep:
            return None
        index = number % len(self.images)
        image = self._widened(self.images[index])
        try:
            small = cut(self.model, self.graph, keep, self.dtype)
            with torch.no_grad(), _same_noise():
                ours = call(small, image)
            with _same_noise():
                theirs, exact = run_exactly(self.model, self.graph, keep, image, self.dtype)
            if number == 0:
                self._try_training(small)
        except Exception as caught:  # whatever a foreign forward raises on other sizes
            if self._asked_too_much(index):
                return self.failure(keep, number)
            lines = str(caught).splitlines() or [type(caught).__name__]
            return f"{_BREAKS} ({lines[0]})"
        error = _difference(ours, theirs)
        allowed = _TOLERANCE[torch.float64 if self.dtype and exact else torch.float32]
        allowed *= _magnitude(theirs)
        if not error <= allowed and not self._jumps(keep, image, theirs, error):
            return f"cutting it differs from masking it by {error:.1e}"
        self.resized.update(name for name, f in attached(small).items() if f.applied)
        self.resized.update(
            rule.module for rule in (get_cut(small) or Cut()).sizes if rule.op == "groups"
        )
        return None

    def _asked_too_much(self, index: int) -> bool:
        """Whether the dense network fails as well; if so, the next try asks for less."""
        if self._runs_wide is None and self.dtype is not None:
            self._runs_wide = self._dense_runs(self._given)
            if not self._runs_wide:
                self.dtype = None
                return True
        if index not in self._taken and self._dense_runs(self.images[index]):
            self._taken.add(index)
        if index in self._taken or (len(self.images) == 1 and not self._spare):
            return False
        spare = self._spare.pop(index, None)
        self.images[index : index + 1] = [] if spare is None else [spare]
        return True

    def _dense_runs(self, image: Inputs) -> bool:
        try:
            with torch.no_grad():
                call(cut(self.model, self.graph, {}, self.dtype), self._widened(image))
            return True
        except Exception:  # a foreign forward may raise anything
            return False

    def _widened(self, image: Inputs) -> Inputs:
        """In the number type of the comparisons."""
        return map_inputs(lambda t: t.to(self.dtype) if t.is_floating_point() else t, image)

    def tell(self, groups: Sequence[Group]) -> bool:
        """Let the forward see dense lengths of these groups; False if it reads none."""
        keep = {group.name: range(1, group.size) for group in groups}
        before = self.graph
        self.graph = before.told_dense(~before.alive(removed(before, keep)))
        return self.graph is not before

    def _jumps(self, keep: KeepSets, image: Inputs, theirs: Any, error: float) -> bool:
        """Whether rounding alone moves the outputs as far: a sort or an arg max among equals."""
        generator = torch.Generator().manual_seed(0)
        nudged = map_inputs(lambda t: _nudged(t, generator), image)
        with _same_noise():
            moved = run_masked(self.model, self.graph, keep, nudged, self.dtype)
        return 0.1 * error < _difference(moved, theirs) < math.inf

    def _try_training(self, small: nn.Module) -> None:
        """Run the cut network in training mode, if the dense one can; in its own number type."""
        floats = [p.dtype for p in self.model.parameters() if p.is_floating_point()]
        try:
            small = small.to(floats[0] if floats else None).train()
            # Backward too where sizes are rewritten: parts of some forwards run again for it.
            resized = bool(attached(small))
            with torch.set_grad_enabled(resized), _same_noise():
                outputs = tensors_of(call(small, self._to_train_on))
                losses = [o.sum() for o in outputs if resized and o.requires_grad]
                if losses:
                    torch.stack(losses).sum().backward()
        except Exception:
            if self._trains is None:
                self._trains = _runs(copy_of(self.model).train(), self._to_train_on)
            if self._trains:
                raise


def _difference(ours: Any, theirs: Any) -> float:
    first, second = tensors_of(ours), tensors_of(theirs)
    if [x.shape for x in first] != [x.shape for x in second]:
        return math.inf
    errors = [(x - y).abs().max().item() for x, y in zip(first, second, strict=True) if x.numel()]
    return max((math.inf if math.isnan(e) else e for e in errors), default=0.0)


def _random_pattern(graph: ChannelGraph, seed: int) -> dict[str, list[list[int]]]:
    """Keep a random number of atoms in every group, never all, so that hidden couplings show.

    At least a quarter: a layer norm over one or two channels multiplies rounding errors. Widths
    that neither 2 nor 3 divides, where there are any, for shuffles and splits hide behind others.
    """
    generator = torch.Generator().manual_seed(seed)
    pattern = {}
    for group in graph.groups:
        least, most = max(1, group.size // 4), max(1, group.size - 1)
        possible = range(least, most + 1)
        widths = [width for width in possible if math.gcd(width, 6) == 1] or list(possible)
        width = widths[int(torch.randint(len(widths), (1,), generator=generator))]
        orders = [torch.randperm(group.size, generator=generator) for _ in range(group.blocks)]
        pattern[group.name] = [sorted(order[:width].tolist()) for order in orders]
    return pattern


def _woken(model: nn.Module) -> nn.Module:
    """A twin that shares the weights, except that none is all zero."""
    generator = torch.Generator().manual_seed(0)
    changed: dict[int, Any] = {}
    for parameter in model.parameters():
        if parameter.is_floating_point() and _largest(parameter) < _NO_WEIGHT:
            noise = 0.1 * torch.rand(parameter.shape, generator=generator)
            changed[id(parameter)] = nn.Parameter(noise.to(parameter), parameter.requires_grad)
    return twin_of(model, changed)


def _largest(parameter: Tensor) -> float:
    return torch.linalg.vector_norm(parameter.detach(), math.inf).item() if parameter.numel() else 1


@contextmanager
def _same_noise() -> Iterator[None]:
    """Random numbers as in every such run, and the caller's left as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _nudged(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
    return tensor * (1 + 1e-13 * noise)


def _runs(model: nn.Module, inputs: Inputs) -> bool:
    try:
        with torch.no_grad():
            call(model, inputs)
        return True
    except Exception:  # a foreign forward may raise anything
        return False


def _magnitude(outputs: Any) -> float:
    return max((x.abs().max().item() for x in tensors_of(outputs) if x.numel()), default=0) + 1e-6

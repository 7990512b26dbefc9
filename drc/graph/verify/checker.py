"""Run a cut network and the masked one side by side: on what, in which numbers, how alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from drc.core.probe import OUT_OF_MEMORY, first_line
from drc.graph.groups import ChannelGraph, Group
from drc.graph.inputs import Inputs, call, map_inputs, tensors_of
from drc.graph.sizes.resized import attached, forgets
from drc.graph.surgery import Cut, KeepSets, cut, get_cut, removed, twin_of
from drc.graph.verify.masked import run_exactly, run_masked
from drc.networks.copying import copy_of

BREAKS = "cutting it breaks the forward pass"
"""How the reasons begin of cut networks that do not run."""

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the output's magnitude
_SMALL = 64 * 64  # pixels
_MANY_PIXELS = 256 * 256
_MANY_WEIGHTS = 200_000_000
_NO_WEIGHT = 1e-4


class Checker:
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
        if isinstance(inputs, Tensor) and inputs.ndim > 1:
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
            trained = self._trained(keep) if number == 0 else None
        except Exception as caught:  # whatever a foreign forward raises on other sizes
            if self._asked_too_much(index):
                return self.failure(keep, number)
            if isinstance(caught, OUT_OF_MEMORY):
                raise  # no fault of the groups
            return f"{BREAKS} ({first_line(caught) or type(caught).__name__})"
        error = difference(ours, theirs)
        allowed = _TOLERANCE[torch.float64 if self.dtype and exact else torch.float32]
        allowed *= _magnitude(theirs)
        if not error <= allowed and not self._jumps(keep, image, theirs, error):
            return f"cutting it differs from masking it by {error:.1e}"
        for network in (small, trained) if trained is not None else (small,):
            modules = dict(network.named_modules())
            for name, forward in attached(network).items():
                if forward.applied and forgets(modules[name]):
                    kind = type(modules[name]).__name__
                    return f"{BREAKS} ({name} is a {kind}, whose copies lose their size rules)"
                if forward.applied:
                    self.resized.add(name)
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
        def work() -> None:
            wide = self._widened(image)
            call(cut(self.model, self.graph, {}, self.dtype), wide)
            run_masked(self.model, self.graph, {}, wide, self.dtype)

        return _runs(work)

    def _widened(self, image: Inputs) -> Inputs:
        """In the number type of the comparisons."""
        return map_inputs(lambda t: t.to(self.dtype) if t.is_floating_point() else t, image)

    def show_dense(self, groups: Sequence[Group]) -> bool:
        """Let the forward see dense lengths of these groups; False if it reads none."""
        keep = {group.name: range(1, group.size) for group in groups}
        before = self.graph
        self.graph = before.showing_dense(~before.alive(removed(before, keep)))
        return self.graph is not before

    def _jumps(self, keep: KeepSets, image: Inputs, theirs: Any, error: float) -> bool:
        """Whether rounding alone moves the outputs as far: a sort or an arg max among equals."""
        generator = torch.Generator().manual_seed(0)
        nudged = map_inputs(lambda t: _nudged(t, generator), image)
        with _same_noise():
            moved = run_masked(self.model, self.graph, keep, nudged, self.dtype)
        return 0.1 * error < difference(moved, theirs) < math.inf

    def _trained(self, keep: KeepSets) -> nn.Module:
        """The cut network run in training mode, which must work where the dense one does."""
        small = cut(self.model, self.graph, keep).train()
        try:
            # Backward too where sizes are rewritten: parts of some forwards run again for it.
            resized = bool(attached(small))
            with torch.set_grad_enabled(resized), _same_noise():
                outputs = tensors_of(call(small, self._to_train_on))
                losses = [o.sum() for o in outputs if resized and o.requires_grad]
                if losses:
                    torch.stack(losses).sum().backward()
        except Exception:
            if self._trains is None:
                dense = copy_of(self.model).train()
                self._trains = _runs(lambda: call(dense, self._to_train_on))
            if self._trains:
                raise
        return small


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference between two outputs; infinite where their shapes differ, or for NaN."""
    first, second = _numbers(ours), _numbers(theirs)
    if [x.shape for x in first] != [x.shape for x in second]:
        return math.inf
    errors = [(x - y).abs().max().item() for x, y in zip(first, second, strict=True) if x.numel()]
    return max((math.inf if math.isnan(e) else e for e in errors), default=0.0)


def _numbers(outputs: Any) -> list[Tensor]:
    """The tensors among the outputs, truth values as 0 and 1."""
    return [x.to(torch.int8) if x.dtype == torch.bool else x for x in tensors_of(outputs)]


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
    return tensor * (1 + 500 * torch.finfo(tensor.dtype).eps * noise)


def _runs(work: Callable[[], Any]) -> bool:
    try:
        with torch.no_grad():
            work()
        return True
    except Exception:  # a foreign forward may raise anything
        return False


def _magnitude(outputs: Any) -> float:
    return max((x.abs().max().item() for x in _numbers(outputs) if x.numel()), default=0) + 1e-6

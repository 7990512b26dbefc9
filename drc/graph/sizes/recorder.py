"""Watching the calls of a traced forward that are given sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from drc.graph.sizes.calls import SizeCall
from drc.graph.sizes.ops import BY_FUNCTION, Given, SizeOp
from drc.graph.sizes.resized import attached
from drc.graph.tracer import Tracer


class SizeRecorder(TorchFunctionMode):
    """Keeps every call of a forward that is given sizes, while it is entered.

    The rewritten forwards of a network that is a cut one already know it meanwhile, and report what
    they make of a call.

    Args:
        tracer: traces the same run; knows the running module and the ids.
        model: what is run.
    """

    def __init__(self, tracer: Tracer, model: nn.Module) -> None:
        super().__init__()
        self._tracer = tracer
        self._rewritten = list(attached(model).values())
        self._seen: list[SizeCall] = []
        self._count: Counter[tuple[str, int, str]] = Counter()
        self._paused = False

    def __enter__(self) -> SizeRecorder:
        for forward in self._rewritten:
            forward.recorder = self
        return super().__enter__()

    def __exit__(self, *details: Any) -> None:
        for forward in self._rewritten:
            forward.recorder = None
        super().__exit__(*details)

    @property
    def calls(self) -> list[SizeCall]:
        """The calls in which channels take part."""
        return [call for seen in self._seen if (call := seen.solid()).touches_channels]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        op = None if self._paused else BY_FUNCTION.get(func)
        given = None if op is None else op.read(func, args, kwargs)
        outputs = func(*args, **kwargs)
        if op is not None and given is not None:
            self._keep(op, given, given.sizes, outputs, op.spare)
        return outputs

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Calls made inside are none of the network's."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def keep_rewritten(self, op: SizeOp, given: Given, sizes: tuple, outputs: Any) -> None:
        """Record a call that a rule of an earlier cut has given other sizes."""
        self._keep(op, given, sizes, outputs, spare=False)

    def _keep(self, op: SizeOp, given: Given, sizes: tuple, outputs: Any, spare: bool) -> None:
        made = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        run = (*self._tracer.module_run, op.name)
        self._seen.append(
            SizeCall(
                module=self._tracer.module,
                op=op.name,
                dim=given.dim,
                number=self._count[run],
                site=op.site(),
                written=tuple(int(size) for size in given.sizes),
                given=tuple(int(size) for size in sizes),
                shape=() if given.tensor is None else tuple(given.tensor.shape),
                source=self._tracer.maps_of(given.tensor),
                targets=[self._tracer.maps_of(x) for x in made if isinstance(x, Tensor)],
                spare=spare,
            )
        )
        self._count[run] += 1
